"""Too little memory on the device, answered with the setting that needs less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from regionedit.config import GeneratorConfig


@contextmanager
def enough_memory(config: GeneratorConfig, modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Inside, these modules work on this device.

    Raises:
        ValueError: too little memory; names the settings that need less.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        sizes = [sum(weight.numel() * weight.element_size() for weight in m.parameters()) for m in modules]
        there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
        told = f" of {there / 2**30:.0f} GiB" if there else ""
        raise ValueError(
            f"generator: too little memory on {device}{told}: the weights take {sum(sizes) / 2**30:.1f} GiB, the rest "
            f"grows with the picture; use --{lighter(config, sizes, there)}, or a smaller --generator.size or --batch"
        ) from error


def lighter(config: GeneratorConfig, sizes: Sequence[int], there: int) -> str:
    """The setting with which modules of these sizes go onto a device of `there` bytes; room for the rest is a fifth."""
    room = 0.8 * there
    if config.precision == "float32" and sum(sizes) / 2 <= room:
        return "generator.precision bfloat16"
    if config.offload == "none" and max(sizes) <= room:
        return "generator.offload model"
    half = " --generator.precision bfloat16" if config.precision == "float32" else ""
    if max(sizes) / (2 if half else 1) <= room and config.offload == "none":
        return f"generator.offload model{half}"
    return f"generator.offload sequential{half}"
