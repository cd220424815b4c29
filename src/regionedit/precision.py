"""Where autocast must not reach: frozen encoders, whose precision is configured, and losses, which are float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Inside, operations on `device` keep the precision of their inputs; harmless where autocast does not exist."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
