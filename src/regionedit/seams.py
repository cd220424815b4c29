"""Hide the seam between an edited region and the source around it.

Shape letters: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SMOOTH = 5  # side, in pixels, of the squares whose means are compared, so that noise and lost detail do not count
EVEN = 0.02  # standard deviation of a channel in the rim, below which contrast and brightness cannot be separated
SCALES, MOST = (0.8, 1.25), 0.15  # a scale or a mean difference beyond these: something else was painted in the rim
LEAST = 16  # pixels of the rim that are needed
ROUNDS = 5  # of fitting and leaving out the pixels that do not fit


def match_tone(edited_CHW: Tensor, source_CHW: Tensor, mask_HW: Tensor, pixels: int) -> Tensor:
    """Undo what a generator has done to the brightness, contrast and colour cast of the whole picture.

    Around the mask, within `pixels` of it, both pictures show the same content. There each channel of the edited
    picture is fitted to the source by a scale and a shift, without the pixels that do not follow the others, such as
    those of content that the generator has changed. If this at least halves the difference in the rim, the channel is
    scaled and shifted everywhere; otherwise it stays as it is.

    Args:
        edited_CHW, source_CHW: [0, 1]; the edited one is not blended yet.
        mask_HW: above 0 where the generator has painted.
        pixels: width of the rim.
    """
    from scipy.ndimage import distance_transform_edt

    inside_HW = (mask_HW > 0).cpu().numpy()
    if not inside_HW.any() or inside_HW.all():
        return edited_CHW
    rim_HW = ~inside_HW & (distance_transform_edt(~inside_HW) <= pixels)
    channels = []
    for edited_HW, source_HW in zip(edited_CHW, source_CHW, strict=True):
        scale, shift = _tone(*(channel_HW.cpu().double().numpy() for channel_HW in (edited_HW, source_HW)), rim_HW)
        channels.append(edited_HW if (scale, shift) == (1, 0) else (scale * edited_HW + shift).clamp(0, 1))
    return torch.stack(channels)


def _tone(edited_HW: np.ndarray, source_HW: np.ndarray, rim_HW: np.ndarray) -> tuple[float, float]:
    """Scale and shift that bring one channel to the source in the rim; (1, 0) if none does."""
    from scipy.ndimage import uniform_filter

    exact_HW = rim_HW & (edited_HW > 0.002) & (edited_HW < 0.998)  # without values that were clipped
    count_HW = uniform_filter(exact_HW.astype(float), SMOOTH)
    edited_R, source_R = (
        uniform_filter(np.where(exact_HW, channel_HW, 0), SMOOTH)[exact_HW] / count_HW[exact_HW]
        for channel_HW in (edited_HW, source_HW)
    )
    if len(edited_R) < LEAST:
        return 1.0, 0.0
    scale, shift = 1.0, np.median(source_R - edited_R)
    for _ in range(ROUNDS):
        apart_R = np.abs(scale * edited_R + shift - source_R)
        kept_R = apart_R <= 4 * max(np.median(apart_R), 1 / 255)
        middle, difference_R = edited_R[kept_R].mean(), (source_R - edited_R)[kept_R]
        around_R = edited_R[kept_R] - middle
        scale = 1 + (around_R * difference_R).mean() / (np.square(around_R).mean() + EVEN**2)
        shift = middle + difference_R.mean() - scale * middle
    left, before = np.abs(scale * edited_R + shift - source_R)[kept_R].mean(), np.abs(difference_R).mean()
    is_tone = 2 * left <= before <= MOST and SCALES[0] <= scale <= SCALES[1]
    return (float(scale), float(shift)) if is_tone else (1.0, 0.0)


def match_border(edited_BCHW: Tensor, source_BCHW: Tensor, mask_B1HW: Tensor, pixels: float) -> Tensor:
    """Adjust an edited picture so that it meets the source without a step at the region's border.

    Just outside the region both pictures show the same content and differ only by the generator's error: the
    autoencoder's colour shift, detail lost in scaling. This difference is continued into the region by Laplace's
    equation and added, which keeps the edited picture's gradients (Poisson image editing, Perez et al. 2003). It
    vanishes at a depth of `pixels`; in Perez et al. it reaches everywhere. The source inside the region is not read.

    Args:
        edited_BCHW, source_BCHW: [0, 1]; the edited one is not blended yet.
        mask_B1HW: [0, 1]; outside is where it is 0.
        pixels: depth; 0 returns the edited picture unchanged.
    """
    from scipy.ndimage import distance_transform_edt

    if pixels <= 0:
        return edited_BCHW
    matched = []
    for edited_CHW, source_CHW, mask_HW in zip(edited_BCHW, source_BCHW, mask_B1HW[:, 0], strict=True):
        inside_HW = (mask_HW > 0).cpu().numpy()
        if inside_HW.all():
            matched.append(edited_CHW)
            continue
        band_HW = inside_HW & (distance_transform_edt(inside_HW) <= pixels)
        difference_HWC = (source_CHW - edited_CHW).permute(1, 2, 0).cpu().double().numpy() * ~inside_HW[..., None]
        correction_HWC = _solve_laplace(difference_HWC, band_HW)
        matched.append(edited_CHW + torch.from_numpy(correction_HWC).permute(2, 0, 1).to(edited_CHW))
    return torch.stack(matched).clamp(0, 1)


def _solve_laplace(values_HWC: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation on the unknown pixels, given the values around them; 0 elsewhere, [H, W, C].

    The picture's border gives no boundary value: nothing flows across it.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    y, x = np.nonzero(np.pad(unknown_HW, 1))
    own = np.arange(len(y))
    number_HW = np.full(unknown_HW.shape, -1)
    number_HW[unknown_HW] = own
    numbers = np.pad(number_HW, 1, constant_values=-2)  # -1: its value is given, -2: outside the picture
    values = np.pad(values_HWC, ((1, 1), (1, 1), (0, 0)))
    degree, given = np.zeros(len(own)), np.zeros((len(own), values_HWC.shape[2]))
    rows, columns = [], []
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        beside = numbers[y + down, x + right]
        degree += beside > -2
        given += np.where((beside == -1)[:, None], values[y + down, x + right], 0)
        rows.append(own[beside >= 0])
        columns.append(beside[beside >= 0])
    place = np.concatenate([*rows, own]), np.concatenate([*columns, own])
    entries = np.concatenate([np.full(len(place[0]) - len(own), -1.0), degree])
    solution_HWC = np.zeros_like(values_HWC)
    solution_HWC[unknown_HW] = splu(coo_array((entries, place), (len(own), len(own))).tocsc()).solve(given)
    return solution_HWC
