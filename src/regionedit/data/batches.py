"""A training batch on its way from a loader to the step: it is copied to the device as uint8, a quarter of the size of
float32, and scaled there.

Shape letters: B batch, C channels, H W pixels, h w latent cells, D embedding width, K objects.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNED = 16  # bytes; every tensor in a packed one begins at a multiple, so that it can be viewed as any dtype


@dataclass(frozen=True)
class TrainBatch:
    """B captioned pictures. Only microworld validation has truth, and only metrics read it.

    A loader gives pictures and masks as uint8 in 0..255; `scaled` makes them float in [0, 1].

    Args:
        keys: sample keys; the noise depends on them, and errors name them.
        images_BCHW: [0, 1].
        proposals_BCHW: stored proposals of the frozen generator, [0, 1], or None: the step makes new ones.
        source_text_BD, target_text_BD: cached CLIP embeddings of the captions, or None: the step computes them.
        latents_BChw: cached latents of the sources in the generator's autoencoder, or None.
        searched_BKn: searched regions and their costs, n = N + 3 (see `region_search`), padded by NaN costs; a
            sample without any is all NaN; or None.
        truth_mask_B1HW: [0, 1] coverage of the true region, or None.
        object_masks: per sample a [K, H, W] bool tensor with the visible silhouette of every object, the one that the
            instruction names first; or None. Only the pointing metric uses it.
        operations: per sample, or empty where unknown.
        tokens: the texts as token ids, if loader processes have tokenised them, see `training.tokens`; else None.
    """

    keys: tuple[str, ...]
    images_BCHW: Tensor
    instructions: tuple[str, ...]
    source_captions: tuple[str, ...]
    target_captions: tuple[str, ...]
    proposals_BCHW: Tensor | None = None
    source_text_BD: Tensor | None = None
    target_text_BD: Tensor | None = None
    latents_BChw: Tensor | None = None
    searched_BKn: Tensor | None = None
    truth_mask_B1HW: Tensor | None = None
    object_masks: tuple[Tensor, ...] | None = None
    operations: tuple[str, ...] = ()
    tokens: dict[str, Tensor] | None = None


def move(batch: TrainBatch, device: torch.device | str) -> TrainBatch:
    """The batch with its tensors on a device; copies from pinned memory overlap with computing. Bytes stay bytes."""
    moved = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device, non_blocking=True)
        elif field.name == "object_masks" and value is not None:
            moved[field.name] = tuple(mask.to(device, non_blocking=True) for mask in value)
        elif field.name == "tokens" and value is not None:
            moved[field.name] = {name: ids.to(device, non_blocking=True) for name, ids in value.items()}
    return dataclasses.replace(batch, **moved)


def scaled(batch: TrainBatch) -> TrainBatch:
    """The batch with pictures and masks as float in [0, 1], made on their device; what is float already stays."""
    pictures = {n: getattr(batch, n) for n in ("images_BCHW", "proposals_BCHW", "truth_mask_B1HW")}
    stored = {n: p for n, p in pictures.items() if p is not None and p.dtype == torch.uint8}
    return dataclasses.replace(batch, **{name: picture.float() / 255 for name, picture in stored.items()})


def packed(content: dict) -> dict:
    """A loader's batch with all its tensors in one, because the training process needs time for each that it receives.

    Args:
        content: a tensor or anything else under each name.
    """
    parts, layout, end = [], [], 0
    for name, value in content.items():
        if isinstance(value, Tensor):
            data = value.contiguous().flatten().view(torch.uint8)
            layout.append((name, value.dtype, tuple(value.shape), end))
            parts += [data, data.new_zeros(-len(data) % _ALIGNED)]
            end += len(data) + len(parts[-1])
    others = {name: value for name, value in content.items() if not isinstance(value, Tensor)}
    return others | {"bytes": torch.cat(parts), "layout": layout}


def unpacked(content: dict) -> dict:
    """The inverse of `packed`; its tensors are views of the one that was sent."""
    tensors = {}
    for name, dtype, shape, start in content["layout"]:
        size = math.prod(shape) * dtype.itemsize
        tensors[name] = content["bytes"][start : start + size].view(dtype).view(shape)
    return content | tensors
