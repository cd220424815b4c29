"""Scale pictures to another size, fit them to a generator's grid and undo that exactly.

The gradient of `resample` is the same in every run, also on a GPU. The one of torch's bicubic interpolation adds with
atomics there, in an order that changes from run to run, so `trainer.deterministic` refuses it.

Shape letters: B batch, C channels, H W pixels, h w pixels of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from regionedit.device import autocast_off


def resample(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures in [0, 1] at `size` (h, w): bicubic, antialiased, clamped to [0, 1]; unchanged if they have it."""
    if tuple(images_BCHW.shape[-2:]) == tuple(size):
        return images_BCHW
    return _Resample.apply(images_BCHW, tuple(size)).clamp(0, 1)


@dataclass(frozen=True)
class Fit:
    """How a picture was fitted: its original size, and the fitted size without padding, in pixels."""

    height: int
    width: int
    inner_height: int
    inner_width: int


def fit(images_BCHW: Tensor, size: int, multiple: int = 1) -> tuple[Tensor, Fit]:
    """Scale to `size` on the longer side, keeping the aspect ratio, and pad right and bottom to a multiple.

    Args:
        size: pixels of the longer side; 0 keeps the size. Nothing is resampled if the size already fits.
        multiple: height and width of the result are multiples of it; padding repeats the last row and column.

    Returns:
        [B, C, h, w] in [0, 1], and the `Fit` that `unfit` needs.
    """
    height, width = images_BCHW.shape[-2:]
    scale = size / max(height, width) if size else 1.0
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    fitted = resample(images_BCHW, inner)
    right, bottom = -inner[1] % multiple, -inner[0] % multiple
    if right or bottom:
        fitted = F.pad(fitted, (0, right, 0, bottom), mode="replicate")
    return fitted, Fit(height, width, *inner)


def fit_mask(mask_B1HW: Tensor, placed: Fit, size: tuple[int, int]) -> Tensor:
    """The mask, or several per picture, at the fitted picture's size (h, w): 1 in every pixel that it touches, else 0.

    So everything that is blended at the original size lies inside the area that the generator may change.
    """
    inner = F.adaptive_max_pool2d((mask_B1HW > 0).float(), (placed.inner_height, placed.inner_width))
    return F.pad(inner, (0, size[1] - placed.inner_width, 0, size[0] - placed.inner_height))


def unfit(fitted_BChw: Tensor, placed: Fit) -> Tensor:
    """Undo `fit`: cut the padding off and scale to the original [B, C, H, W]."""
    inner = fitted_BChw[..., : placed.inner_height, : placed.inner_width]
    return resample(inner, (placed.height, placed.width))


class _Resample(torch.autograd.Function):
    """Each axis is scaled by a matrix; the gradient is multiplied by the transposed ones."""

    @staticmethod
    def forward(ctx, images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size = images_BCHW.shape[-2:]
        return _bicubic(images_BCHW, size)

    @staticmethod
    def backward(ctx, gradient_BChw: Tensor) -> tuple[Tensor, None]:
        rows_Hh, columns_Ww = (
            _bicubic(torch.eye(before, device=gradient_BChw.device)[None, None], (before, after))[0, 0]
            for before, after in zip(ctx.size, gradient_BChw.shape[-2:], strict=True)
        )
        with autocast_off(gradient_BChw.device):
            return (rows_Hh @ gradient_BChw.float() @ columns_Ww.T).to(gradient_BChw.dtype), None


def _bicubic(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images_BCHW, size, mode="bicubic", antialias=True, align_corners=False)
