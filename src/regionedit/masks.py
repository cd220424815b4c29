"""Masks: from probabilities on a patch grid to the picture's size and back, growing and feathering, and blending.

Shape letters: B batch, C channels, H W pixels, N patches (N = grid * grid, row by row).
Masks are float B1HW in [0, 1], 1 = edit; probabilities are float BN in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(
    probability_BN: Tensor,
    grid: int | tuple[int, int],
    size: tuple[int, int],
    mode: Literal["nearest", "bilinear"] = "nearest",
) -> Tensor:
    """Upsample a grid of probabilities to a picture: [B, N] -> [B, 1, H, W]. Differentiable.

    `nearest` gives every pixel the value of the patch that contains its centre, at any size. `grid` is the number of
    patches a side, or (rows, columns). Raises ValueError: N patches do not fill the grid.
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    batch, patches = probability_BN.shape
    if patches != rows * columns:
        raise ValueError(f"probability_BN: {patches} patches do not fill a grid of {rows} x {columns}")
    values = probability_BN.reshape(batch, 1, rows, columns)
    if mode == "nearest":
        return F.interpolate(values, size, mode="nearest-exact")
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def downsample(mask_B1HW: Tensor, grid: int) -> Tensor:
    """The share of every patch that the mask covers, exact for any picture size: [B, 1, H, W] -> [B, N]."""
    height, width = mask_B1HW.shape[-2:]
    rows_gH = _overlap(height, grid, mask_B1HW)
    columns_gW = _overlap(width, grid, mask_B1HW)
    return (rows_gH @ mask_B1HW[:, 0] @ columns_gW.T).flatten(1)


def _overlap(length: int, cells: int, like: Tensor) -> Tensor:
    """[cells, length]: which share of cell i is covered by pixel j, when `cells` equal cells span `length` pixels."""
    starts = torch.arange(cells, device=like.device, dtype=torch.float64)[:, None] * length / cells
    pixels = torch.arange(length, device=like.device, dtype=torch.float64)[None]
    shared = torch.minimum(starts + length / cells, pixels + 1) - torch.maximum(starts, pixels)
    return (shared.clamp(min=0) * cells / length).to(like.dtype)


def binarize(
    probability: Tensor, threshold: float = 0.5, estimator: Literal["straight_through"] | None = None
) -> Tensor:
    """Turn probabilities of any shape into a mask of 0 and 1: 1 where they are strictly above the threshold.

    `straight_through` gives it the gradient of the identity, None gives none. Raises ValueError: another estimator.
    """
    hard = (probability > threshold).to(probability.dtype)
    if estimator is None:
        return hard
    if estimator != "straight_through":
        raise ValueError(f"estimator: {estimator!r} is unknown; use None or 'straight_through'")
    # In this order the forward value is exactly 0 or 1: x - x is 0 and adding it changes nothing.
    return hard + (probability - probability.detach())


def dilate(mask_B1HW: Tensor, pixels: int | tuple[int, int]) -> Tensor:
    """Grow a mask by `pixels` (or by (rows, columns)) on every side; soft values spread unchanged."""
    rows, columns = (pixels, pixels) if isinstance(pixels, int) else pixels
    return _running_maximum(_running_maximum(mask_B1HW, rows, 2), columns, 3)


def _running_maximum(values: Tensor, radius: int, dim: int) -> Tensor:
    """Maximum over 2 * radius + 1 neighbours along `dim`, in log2(radius) passes however large the radius is."""
    if radius <= 0:
        return values
    padding = (radius, radius) if dim == 3 else (0, 0, radius, radius)
    values = F.pad(values, padding)
    window = 1
    while window < 2 * radius + 1:
        step = min(window, 2 * radius + 1 - window)
        length = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length))
        window += step
    return values


def grow(mask_B1HW: Tensor, pixels: int) -> Tensor:
    """Grow a mask by `pixels` on every side, or shrink it if `pixels` is negative.

    The picture's border is not an edge of the mask: a mask does not shrink away from it.
    """
    return dilate(mask_B1HW, pixels) if pixels >= 0 else 1 - dilate(1 - mask_B1HW, -pixels)


def divide(mask_B1HW: Tensor, claims_BKHW: Tensor) -> Tensor:
    """Divide a mask among K claims: [B, K, H, W]; the parts do not overlap, and their union is the mask.

    Each pixel goes to the highest claim (the first of equal ones); a pixel without a claim goes to the owner of the
    nearest claimed pixel.
    """
    from scipy.ndimage import distance_transform_edt

    highest_BHW, owner_BHW = claims_BKHW.max(1)
    for claimed_HW, owner_HW in zip(highest_BHW > 0, owner_BHW, strict=True):
        if claimed_HW.any() and not claimed_HW.all():
            rows_HW, columns_HW = distance_transform_edt(
                ~claimed_HW.numpy(), return_distances=False, return_indices=True
            )
            owner_HW.copy_(owner_HW[torch.from_numpy(rows_HW).long(), torch.from_numpy(columns_HW).long()])
    owned_BKHW = torch.arange(claims_BKHW.shape[1])[:, None, None] == owner_BHW[:, None]
    return mask_B1HW * owned_BKHW


def feather(mask_B1HW: Tensor, pixels: float) -> Tensor:
    """Soften a mask's edge inwards: what was 0 stays 0, and the full value is reached `pixels` inside the edge.

    The picture's border is not an edge of the mask. No gradient.
    """
    from scipy.ndimage import distance_transform_edt

    if pixels <= 0:
        return mask_B1HW
    softened = []
    for mask_HW in mask_B1HW[:, 0].detach().cpu().numpy():
        inside = mask_HW > 0
        depth = np.ones_like(mask_HW) if inside.all() else distance_transform_edt(inside) / (pixels + 1)
        softened.append(mask_HW * np.minimum(depth, 1))
    return torch.from_numpy(np.stack(softened)[:, None]).to(mask_B1HW)


def composite(edited_BCHW: Tensor, source_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Blend by the mask: exactly the source where it is 0, bit for bit, and exactly the edit where it is 1.

    The gradient of the mask is edited - source everywhere, also where the mask is 0 or 1; otherwise a mask that is hard
    in the forward pass could never grow. Undefined edited pixels (NaN) do no harm where the mask is 0.
    """
    mask_B1HW = mask_B1HW.to(source_BCHW.dtype)
    unusable = (mask_B1HW == 0) & ~torch.isfinite(edited_BCHW)
    edited_BCHW = torch.where(unusable, source_BCHW, edited_BCHW.to(source_BCHW.dtype))
    # lerp starts from the nearer end: both ends are exact, and where edit and source are equal, so is the result, for
    # any mask. m * e + (1 - m) * s would round there, and eq. 8 would see a change in an unchanged picture.
    return torch.lerp(source_BCHW, edited_BCHW, mask_B1HW)


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union per sample, [B]: sum of minima over sum of maxima, which also holds for soft masks.

    Two empty masks agree: 1. Raises ValueError: different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks of one shape are needed, got {tuple(first.shape)} and {tuple(second.shape)}")
    first, second = first.float().flatten(1), second.float().flatten(1)
    shared = torch.minimum(first, second).sum(1)
    joined = torch.maximum(first, second).sum(1)
    return torch.where(joined == 0, 1.0, shared / joined.clamp(min=torch.finfo(joined.dtype).tiny))


def random_hard(seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Random masks, independent of the picture, as public in-painters are trained with: B1HW of 0 and 1, never empty.

    A quarter of them cover the whole picture; the rest are boxes and blobs in equal parts. Each seed gives one mask of
    `size` (height, width), whatever it is batched with.
    """
    masks = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        kind = rng.random()
        if kind < 0.25:
            masks.append(np.ones(size, bool))
        elif kind < 0.625:
            masks.append(np.any([_box(rng, size) for _ in range(rng.integers(1, 4))], axis=0))
        else:
            masks.append(_blob(rng, size))
    return torch.from_numpy(np.stack(masks)[:, None]).float()


def _box(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A box of 15 to 60 % of either side, wholly inside."""
    mask = np.zeros(size, bool)
    spans = []
    for length in size:
        side = min(length, max(1, round(length * rng.uniform(0.15, 0.6))))
        start = rng.integers(0, length - side + 1)
        spans.append(slice(start, start + side))
    mask[tuple(spans)] = True
    return mask


def _blob(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random brush stroke: discs of one radius along a random walk."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    reach = min(height, width)
    radius = max(1.0, reach * rng.uniform(0.08, 0.2))
    point = rng.uniform((0, 0), (height - 1, width - 1))
    mask = np.zeros(size, bool)
    for _ in range(rng.integers(3, 9)):
        mask |= (rows - point[0]) ** 2 + (columns - point[1]) ** 2 <= radius**2
        point = np.clip(point + rng.normal(0, radius, 2), 0, (height - 1, width - 1))
    return mask
