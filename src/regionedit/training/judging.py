"""CLIP features of the composed pictures: of the whole batch at once, or chunk by chunk with one backward pass each.

Each picture's loss depends only on that picture. So one chunk can be decoded, encoded by CLIP and differentiated before
the next one starts, and the decoder and CLIP keep activations of a chunk, not of the batch. Nothing is computed twice.

Shape letters: B batch, b pictures of a chunk, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from regionedit.encoders import ImageFeatures

if TYPE_CHECKING:
    from torch import Tensor

    Look = Callable[[Tensor], tuple[Tensor, ImageFeatures]]


@dataclass(frozen=True)
class Judged:
    """Composed pictures and their CLIP features.

    Args:
        composed_BCHW: at CLIP's size.
        features: of the composed pictures; detached if there is a `surrogate_loss_B`.
        surrogate_loss_B: its value is zero, and its gradient with respect to `judge`'s first argument is that of the
            losses. None: the features carry the gradient.
    """

    composed_BCHW: Tensor
    features: ImageFeatures
    surrogate_loss_B: Tensor | None = None


def judge(blended_B: Tensor, look: Look, loss: Callable[[ImageFeatures, slice], Tensor], chunk: int) -> Judged:
    """Compose and encode all pictures, `chunk` rows at a time; 0: all at once.

    Counted by benchmarks/memory.py, 32 pictures of 512 px, KL decoder, one denoising step: chunks of 4 reduce the
    step's peak memory to .42 of its size.

    Args:
        blended_B: the tensor that carries the gradient, latents or composed pictures, [B, ...].
        look: from rows of it to the composed pictures and their features, each row on its own.
        loss: from the features of some rows to their losses [b], each row on its own.
    """
    if not chunk:
        return Judged(*look(blended_B))
    pictures, features, gradients = [], [], []
    for start in range(0, len(blended_B), chunk):
        rows = slice(start, start + chunk)
        part_b = blended_B[rows]
        composed_bCHW, encoded = look(part_b)
        if part_b.requires_grad:
            gradients.append(torch.autograd.grad(loss(encoded, rows).sum(), part_b)[0])
        pictures.append(composed_bCHW.detach())
        features.append((encoded.global_BD.detach(), encoded.patches_BND.detach()))
    detached = ImageFeatures(*(torch.cat(parts) for parts in zip(*features, strict=True)))
    surrogate_loss_B = None
    if gradients:
        surrogate_loss_B = ((blended_B - blended_B.detach()) * torch.cat(gradients)).flatten(1).sum(1)
    return Judged(torch.cat(pictures), detached, surrogate_loss_B)
