"""Which device computes, and where autocast must not reach: frozen encoders, whose precision is configured, and losses,
which are float32."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Inside, operations on `device` keep the precision of their inputs; harmless where autocast does not exist."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def pick_device(name: str) -> torch.device:
    """The device of a configuration; `auto` takes a GPU where there is one, this process's own under torchrun.

    Raises:
        ValueError: a device that is not there.
    """
    if name == "auto":
        own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        name = own if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts when it was built without CUDA
        raise ValueError(f"device: {name!r} cannot be used here: {' '.join(str(error).split())[:120]}") from None
    return device
