"""Replaces every dtype `auto` of a configuration, once, by the one for the device in use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from regionedit.device import named, pick_device, pick_dtype
from regionedit.generators import with_dtype

if TYPE_CHECKING:
    import torch

    from regionedit.config import EditConfig, EncodersConfig, TrainConfig

Edit = TypeVar("Edit", bound="EditConfig")
Train = TypeVar("Train", bound="TrainConfig")


def resolve_editing(config: Edit, device: str | torch.device) -> Edit:
    """`config` with the dtypes that are used on `device`.

    Raises:
        ValueError: an unknown `generator.name`, or a `describe.device` that is not available.
    """
    describe = config.describe
    if getattr(describe, "dtype", None) == "auto":
        describe = replace(describe, dtype=pick_dtype("auto", pick_device(describe.device)))
    encoders = _with_text_dtype(config.encoders, device)
    return replace(
        config,
        encoders=replace(encoders, dtype=pick_dtype(encoders.dtype, device)),
        generator=with_dtype(config.generator, device),
        region=replace(config.region, attention=with_dtype(config.region.attention, device)),
        describe=describe,
    )


def resolve_training(config: Train, device: str | torch.device) -> Train:
    """`config` with the dtypes that are used on `device`. For the encoders `auto` is always float32, because
    equation 8 compares small differences; on a GPU its products are TF32, and `losses.CERTAIN` takes that into account.

    Raises:
        ValueError: an unknown `generator.name`.
    """
    encoders = _with_text_dtype(config.encoders, device)
    if encoders.dtype == "auto":
        encoders = replace(encoders, dtype="float32")
    return replace(config, encoders=encoders, generator=with_dtype(config.generator, device))


def describe_dtypes(config: EditConfig | TrainConfig, device: str | torch.device) -> str:
    """Device and dtypes as a short text for the terminal."""
    encoders = config.encoders
    texts = f", texts in {encoders.text_dtype}" if encoders.text_dtype not in (None, encoders.dtype) else ""
    return f"on {named(device)}: generator in {config.generator.dtype}, encoders in {encoders.dtype}{texts}"


def _with_text_dtype(encoders: EncodersConfig, device: str | torch.device) -> EncodersConfig:
    """None stays: texts then follow `encoders.dtype`."""
    if encoders.text_dtype is None:
        return encoders
    return replace(encoders, text_dtype=pick_dtype(encoders.text_dtype, device))
