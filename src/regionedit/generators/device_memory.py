"""Turns an out-of-memory error of the device into advice: which setting needs less memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from regionedit.config import DiffusersInpaintConfig


@contextmanager
def enough_memory(config: DiffusersInpaintConfig, modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Inside, these modules run on this device.

    Raises:
        ValueError: too little memory; names settings that need less.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        sizes = [sum(weight.numel() * weight.element_size() for weight in m.parameters()) for m in modules]
        total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
        of_total = f" of {total / 2**30:.0f} GiB" if total else ""
        raise ValueError(
            f"generator: too little memory on {device}{of_total}: the weights take {sum(sizes) / 2**30:.1f} GiB, "
            f"the rest grows with the picture; use --{lighter(config, sizes, total)}, or a smaller "
            "--generator.size or --batch"
        ) from error


def lighter(config: DiffusersInpaintConfig, sizes: Sequence[int], there: int) -> str:
    """The setting with which modules of these sizes fit into 4/5 of `there` bytes; the rest stays free."""
    room = 0.8 * there
    if config.dtype == "float32" and sum(sizes) / 2 <= room:
        return "generator.dtype bfloat16"
    if config.offload == "none" and max(sizes) <= room:
        return "generator.offload model"
    half = " --generator.dtype bfloat16" if config.dtype == "float32" else ""
    if max(sizes) / (2 if half else 1) <= room and config.offload == "none":
        return f"generator.offload model{half}"
    return f"generator.offload sequential{half}"
