"""A stand-in for a GPU that counts when Python would wait for it: the meta device, whose tensors hold no numbers."""

import traceback

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
CREATES = (torch.tensor, torch.as_tensor)
DATA_DEPENDENT = (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)


class Waits(TorchDispatchMode):
    """Inside, `places` lists each wait as `file:line operation`: a number that is read from the device, a copy from it,
    a copy to it that was not sent on without waiting, an operation whose result has a size that the device decides."""

    def __init__(self):
        super().__init__()
        self.places: list[str] = []
        self._creates = _Creates(self)

    def __enter__(self):
        self._creates.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._creates.__exit__(*error)

    def note(self, operation: str) -> None:
        frames = [
            f for f in traceback.extract_stack() if "device_waits" not in f.filename and "/torch/" not in f.filename
        ]
        self.places.append(f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno} {operation}")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_device = [t.is_meta for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if any(on_device):
            if function is torch.ops.aten._local_scalar_dense.default:
                self.note("reads a number")
                return 1
            if function in DATA_DEPENDENT or _indexed_by_mask(function, args):
                self.note(str(function))
            elif not all(on_device) and function not in COPIES and _mixes(args):
                self.note(str(function))
        if function in COPIES:
            made = self._copy(function, args, kwargs)
            if made is not None:
                return made
        return function(*args, **kwargs)

    def _copy(self, function, args, kwargs):
        if function is COPIES[1]:
            target, source = args[0].device, args[1]
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        else:
            source, target = args[0], torch.device(kwargs.get("device") or args[0].device)
            waits = not kwargs.get("non_blocking", False)
        if source.is_meta and target.type == "cpu":
            self.note("copies from the device")
            made = torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return args[0].copy_(made) if function is COPIES[1] else made
        if not source.is_meta and target.type == "meta" and waits:
            self.note("copies to the device")
        return None


class _Creates(TorchFunctionMode):
    def __init__(self, waits: Waits):
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in CREATES and torch.device(kwargs.get("device") or "cpu").type == "meta":
            self.waits.note("creates a tensor from Python's numbers")
        return function(*args, **kwargs)


def _indexed_by_mask(function, args) -> bool:
    if function not in (
        torch.ops.aten.index.Tensor,
        torch.ops.aten.index_put_.default,
        torch.ops.aten.index_put.default,
    ):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _mixes(args) -> bool:
    """Whether a tensor of the CPU that is more than a number meets one of the device."""
    return any(isinstance(t, torch.Tensor) and not t.is_meta and t.ndim for t in tree_leaves(args))


class OnMeta(SingleDeviceStrategy):
    """Trains on the meta device."""

    def __init__(self):
        super().__init__(torch.device("meta"), accelerator=_Accelerator())


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass
