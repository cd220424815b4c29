"""From the blend to its CLIP features: for the whole batch at once, or for a few pictures at a time to save memory.

Shape letters: B batch, b pictures of a chunk, C channels, H W pixels, N patches, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from regionedit import losses
from regionedit.config import LossConfig
from regionedit.encoders import FrozenCLIP, ImageFeatures
from regionedit.records import StepOutputs


@dataclass(frozen=True)
class Blend:
    """Proposal and source, blended by the region.

    Args:
        rows_B: the tensor that carries the gradient, pictures or latents, [B, ...].
        decode: from any of its rows to pictures at CLIP's size, [b, C, H, W] in [0, 1]; each depends on its own row.
        proposal_BCHW: the proposal at CLIP's size, [0, 1]; None if the generator blends latents, so that the decoded
            blend is the only picture.
    """

    rows_B: Tensor
    decode: Callable[[Tensor], Tensor]
    proposal_BCHW: Tensor | None = None


class Result(NamedTuple):
    """The blended pictures, [0, 1], at CLIP's size; their features; the surrogate loss of `encode_result`, or None."""

    picture_BCHW: Tensor
    features: ImageFeatures
    surrogate_loss_B: Tensor | None


def encode_result(blend: Blend, clip: FrozenCLIP, outputs: StepOutputs, config: LossConfig, chunk: int) -> Result:
    """Decode the blend and encode it with CLIP, all at once or `chunk` pictures at a time.

    Each picture's loss depends on that picture alone. So one chunk can be decoded, encoded and differentiated before
    the next one starts: decoder and CLIP keep the activations of a chunk instead of the batch, and nothing is computed
    twice. The features are then detached, and a surrogate loss takes their place in the backward pass: its value is 0,
    and its gradient with respect to `blend.rows_B` is that of equations 7-9. Without chunks there is no surrogate loss,
    because the features themselves are differentiable.

    Args:
        outputs: of the same pictures, without a result.
        chunk: pictures at a time; 0: all at once.

    Counted by benchmarks/memory.py, 32 pictures of 512 px, KL decoder, one denoising step: chunks of 4 reduce the
    step's peak memory to .42 of its size.
    """
    if not chunk:
        picture_BCHW = blend.decode(blend.rows_B)
        return Result(picture_BCHW, clip.encode_image(picture_BCHW), None)
    pictures, features, gradients = [], [], []
    for start in range(0, len(blend.rows_B), chunk):
        rows = slice(start, start + chunk)
        part_b = blend.rows_B[rows]
        picture_bCHW = blend.decode(part_b)
        encoded = clip.encode_image(picture_bCHW)
        if part_b.requires_grad:
            of_chunk = {name: value[rows] for name, value in vars(outputs).items() if isinstance(value, Tensor)}
            of_chunk |= {"result_BD": encoded.global_BD, "result_patches_BND": encoded.patches_BND}
            loss_b = losses.of_the_result(replace(outputs, **of_chunk), config)
            gradients.append(torch.autograd.grad(loss_b.sum(), part_b)[0])
        pictures.append(picture_bCHW.detach())
        features.append((encoded.global_BD.detach(), encoded.patches_BND.detach()))
    detached = ImageFeatures(*(torch.cat(parts) for parts in zip(*features, strict=True)))
    surrogate_loss_B = None
    if gradients:
        surrogate_loss_B = ((blend.rows_B - blend.rows_B.detach()) * torch.cat(gradients)).flatten(1).sum(1)
    return Result(torch.cat(pictures), detached, surrogate_loss_B)
