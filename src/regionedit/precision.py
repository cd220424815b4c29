"""Replaces every precision `auto` of a configuration, once, by the precision for the device in use."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from regionedit.device import pick_device, pick_precision
from regionedit.generators import settled

if TYPE_CHECKING:
    import torch

    from regionedit.config import EditConfig, TrainConfig

Edit = TypeVar("Edit", bound="EditConfig")
Train = TypeVar("Train", bound="TrainConfig")


def settle_editing(config: Edit, device: str | torch.device) -> Edit:
    """`config` with the precisions that are used on `device`.

    Raises:
        ValueError: an unknown `generator.name`, or a `describe.device` that is not available.
    """
    describe = config.describe
    if describe.precision == "auto":
        describe = replace(describe, precision=pick_precision("auto", pick_device(describe.device)))
    return replace(
        config,
        encoders=replace(config.encoders, precision=pick_precision(config.encoders.precision, device)),
        generator=settled(config.generator, device),
        region=replace(config.region, attention=settled(config.region.attention, device)),
        describe=describe,
    )


def settle_training(config: Train, device: str | torch.device) -> Train:
    """`config` with the precisions that are used on `device`. For the encoders `auto` is always float32: equation 8
    compares features that differ by less than the rounding of bfloat16.

    Raises:
        ValueError: an unknown `generator.name`.
    """
    encoders = config.encoders
    if encoders.precision == "auto":
        encoders = replace(encoders, precision="float32")
    return replace(config, encoders=encoders, generator=settled(config.generator, device))


def describe_precision(config: EditConfig | TrainConfig, device: str | torch.device) -> str:
    """Device and precision as a short text for the terminal."""
    return f"on {device}: generator in {config.generator.precision}, encoders in {config.encoders.precision}"
