"""Choose device and precision, and switch autocast off for frozen networks (their precision is configured) and for
losses (always float32)."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

DEVICE_FILES, DRIVER_FILE = "/dev/nvidia[0-9]*", "/proc/driver/nvidia/version"
OLDEST_DRIVERS = {12: 525, 13: 580}
"""Version of CUDA -> the oldest NVIDIA driver for Linux that runs all its minor versions."""


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

    If `auto` ends on another device although the machine has an NVIDIA GPU, a line on stderr says why.

    Raises ValueError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        say_unseen_gpu()
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{_own_number(part) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts when it was built without CUDA
        reason = unseen_gpu() or " ".join(str(error).split())[:120]
        raise ValueError(f"device: {name!r} cannot be used here: {reason}") from None
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


def named(device: str | torch.device) -> str:
    """A device for the user: `cpu`, or a GPU with its model such as `cuda:0 (NVIDIA A100-SXM4-80GB)`."""
    device = torch.device(device)
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def unseen_gpu() -> str:
    """Why torch cannot use this machine's NVIDIA GPU, in one line with the remedy; empty if it can, or there is none.

    A GPU that CUDA_VISIBLE_DEVICES hides on purpose does not count.
    """
    root, pattern = os.path.split(DEVICE_FILES)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    if hidden or torch.cuda.is_available() or not any(Path(root).glob(pattern)):
        return ""
    cuda, file = torch.version.cuda, Path(DRIVER_FILE)
    found = re.search(r"Kernel Module.*?(\d{3,})\.\d", file.read_text()) if file.is_file() else None
    needed = OLDEST_DRIVERS.get(int(cuda.split(".")[0])) if cuda else None
    if cuda is None:
        reason = "it was built without CUDA"
    elif found and needed and int(found[1]) < needed:
        reason = f"its CUDA {cuda} needs an NVIDIA driver of {needed} or newer, this machine has {found[1]}"
    else:
        reason = f"CUDA {cuda} does not start; run nvidia-smi"
    return f"this machine has an NVIDIA GPU that torch {torch.__version__} cannot use: {reason}; see docs/install.md"


@cache
def say_unseen_gpu() -> None:
    """Print `unseen_gpu` on stderr, once in a process."""
    if reason := unseen_gpu():
        print(f"warning: {reason}", file=sys.stderr, flush=True)


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
