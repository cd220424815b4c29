"""What CLIP sees of the composed pictures: of all at once, or chunk by chunk with the gradient taken on the way.

Each picture's loss depends on that picture alone, so a chunk can be decoded, seen and sent back before the next one is
begun, and what the decoder and CLIP keep for the way back is a chunk's and not the batch's. Nothing is computed twice.

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
    """Composed pictures and what CLIP says of them.

    Args:
        composed_BCHW: at CLIP's size.
        features: of the composed pictures; without gradient where there is a `pull_B`.
        pull_B: zeros whose gradient with respect to what was begun is the loss's, or None: the features carry it.
    """

    composed_BCHW: Tensor
    features: ImageFeatures
    pull_B: Tensor | None = None


def judge(begun_B: Tensor, look: Look, loss: Callable[[ImageFeatures, slice], Tensor], chunk: int) -> Judged:
    """Finish and look at everything, `chunk` rows at a time; 0: all at once.

    Counted by benchmarks/memory.py, 32 pictures of 512 px, KL decoder, one denoising step: chunks of 4 bring the step's
    peak to .42 of what it was.

    Args:
        begun_B: what carries the gradient, latents or composed pictures, [B, ...].
        look: from rows of it to the composed pictures and their features, each row on its own.
        loss: from the features of some rows to their losses [b], each row on its own.
    """
    if not chunk:
        return Judged(*look(begun_B))
    pictures, features, pulls = [], [], []
    for start in range(0, len(begun_B), chunk):
        rows = slice(start, start + chunk)
        part_b = begun_B[rows]
        composed_bCHW, seen = look(part_b)
        if part_b.requires_grad:
            pulls.append(torch.autograd.grad(loss(seen, rows).sum(), part_b)[0])
        pictures.append(composed_bCHW.detach())
        features.append((seen.global_BD.detach(), seen.patches_BND.detach()))
    found = ImageFeatures(*(torch.cat(parts) for parts in zip(*features, strict=True)))
    pull_B = None
    if pulls:
        pull_B = ((begun_B - begun_B.detach()) * torch.cat(pulls)).flatten(1).sum(1)
    return Judged(torch.cat(pictures), found, pull_B)
