"""Choose device and precision, and switch autocast off for frozen networks (their precision is configured) and for
losses (always float32)."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Inside, operations on `device` keep the precision of their inputs; harmless where autocast does not exist."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def pick_device(name: str) -> torch.device:
    """The device of a configuration; `auto` takes a GPU if there is one, under torchrun the one of this process.

    Raises ValueError: the device is not available.
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


def rounding(dtype: torch.dtype, device: torch.device) -> float:
    """The largest relative rounding of a number that enters a matrix product of this dtype on this device.

    On a GPU that has TF32, float32 products round to 11 bits, unless both of torch's switches are off
    (`torch.set_float32_matmul_precision`, `torch.backends.cudnn.allow_tf32`). The relative error of an embedding is
    about as large: measured on emulated TF32 and bfloat16, 0.6 to 1.2 times this number.
    """
    if dtype == torch.float32 and device.type == "cuda" and torch.cuda.is_tf32_supported():
        if torch.get_float32_matmul_precision() != "highest" or torch.backends.cudnn.allow_tf32:
            return 2.0**-11
    return torch.finfo(dtype).eps / 2


def pick_dtype(name: str, device: str | torch.device) -> str:
    """The precision of a configuration; `auto` is bfloat16 if the device multiplies it faster than float32."""
    if name != "auto":
        return name
    return "bfloat16" if fast_bfloat16(torch.device(device).type) else "float32"


@cache
def fast_bfloat16(kind: str) -> bool:
    """Whether devices of this kind have hardware that multiplies bfloat16 matrices faster than float32 ones.

    On a CPU this means AMX's tiles or ARM's BFMMLA. The dot products of AVX512-BF16 alone do not count: with them torch
    2.15 took 1.1 to 1.7 times as long as in float32 for convolutions, matrix products and attention of the sizes used
    here. oneDNN is queried as well, because ONEDNN_MAX_CPU_ISA limits it; without hardware support bfloat16 took 25
    times as long.

    Args:
        kind: `cuda`, `cpu`, `mps`.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine() in ("aarch64", "arm64"):  # on ARM, oneDNN's answer refers to BFMMLA
        return True
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
