"""Scale pictures to another size. The gradient is the same in every run, on a GPU too.

torch's own gradient of this operation adds with atomics on a GPU, in an order that changes from run to run, so that
`trainer.deterministic` refuses it.

Shape letters: B batch, C channels, H W pixels, h w pixels of the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from regionedit.device import autocast_off


def resample(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures in [0, 1] at `size` (h, w): bicubic, antialiased, clamped to [0, 1]; unchanged if they have it."""
    if tuple(images_BCHW.shape[-2:]) == tuple(size):
        return images_BCHW
    return _Resample.apply(images_BCHW, tuple(size)).clamp(0, 1)


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
