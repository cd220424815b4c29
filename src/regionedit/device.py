"""Choose device and precision, and switch autocast off for frozen networks (their precision is configured) and for
losses (always float32)."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Inside, operations on `device` keep the precision of their inputs; harmless where autocast does not exist."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. A copy from the CPU to a GPU goes through pinned memory, so that Python does not wait for
    what the GPU is still computing."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def pick_device(name: str, part: int = 0) -> torch.device:
    """The device of a configuration: `auto` takes a GPU if there is one; `auto` and `cuda` take this process's own GPU.

    Args:
        part: this process's share of the work, counted from 0, where several processes of one machine divide it. It
            decides where neither torchrun nor srun has numbered the processes.

    Raises ValueError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{_own_number(part) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts when it was built without CUDA
        raise ValueError(f"device: {name!r} cannot be used here: {' '.join(str(error).split())[:120]}") from None
    return device


def _own_number(part: int) -> int:
    """The number of this process on its machine: from torchrun, else from srun, else its share of the work.

    A script under sbatch, outside srun, also has a SLURM_LOCALID, always 0; all processes that it starts share it.
    """
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    number = int(os.environ.get("SLURM_LOCALID", 0))
    numbered = number or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
    return number if numbered else part


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
