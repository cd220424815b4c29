"""A batch on its way from a loader to the step: to the device as bytes, a quarter of the floats, and there scaled."""

from __future__ import annotations

import dataclasses

import torch

from regionedit.records import TrainBatch


def move(batch: TrainBatch, device: torch.device | str) -> TrainBatch:
    """The batch with its tensors on a device; copies from pinned memory overlap with computing. Bytes stay bytes."""
    moved = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
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


def joined(tokens: dict[str, torch.Tensor]) -> dict:
    """Token ids as one tensor, because the training process needs time for each tensor that it receives."""
    ids = torch.cat([each.flatten().long() for each in tokens.values()])
    return {"ids": ids, "shapes": [(name, *each.shape) for name, each in tokens.items()]}


def separate(content: dict) -> dict[str, torch.Tensor]:
    """The token ids of `joined` by name, int64; views of the one tensor."""
    shapes = {name: tuple(shape) for name, *shape in content["shapes"]}
    parts = content["ids"].split([rows * columns for rows, columns in shapes.values()])
    return {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
