"""How often a training step makes Python wait for the GPU: counted on a stand-in, the meta device."""

import traceback
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regionedit.training import run, train

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
            f for f in traceback.extract_stack() if "test_waits" not in f.filename and "/torch/" not in f.filename
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


slow = partial(pytest.param, marks=pytest.mark.slow)
STEADY = 2  # by this step everything has happened once


class Enough(Exception):
    pass


class Count(Callback):
    """Counts the waits of whole steps, from one to the next, and ends the run."""

    def __init__(self, waits: Waits):
        self.waits, self.by_step = waits, []

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.by_step.append(list(self.waits.places))
        self.waits.places.clear()
        if trainer.global_step == STEADY + 2:
            raise Enough


@pytest.fixture
def waits_of(tiny_train, monkeypatch):
    """The waits of every step from the second to the fourth."""

    def run_on_meta(*changes: str) -> list[list[str]]:
        def trainer(**settings):
            del settings["accelerator"], settings["devices"]
            return Trainer(**settings, strategy=OnMeta())

        monkeypatch.setattr(run, "Trainer", trainer)
        with Waits() as waits:
            count = Count(waits)
            with pytest.raises(Enough):
                train(tiny_train("--max_steps=100", "--log.every_steps=1000", *changes), [count])
        return count.by_step[STEADY:]

    return run_on_meta


@pytest.mark.parametrize(
    "changes",
    [
        ["--step.gradient=composite", "--step.proposal_mask=predicted_hard", "--generator.guidance_scale=3"],
        slow(["--step.gradient=composite", "--step.proposal_mask=random_hard", "--data.micro_batch=1"]),
        slow(["--step.gradient=latent", "--step.proposal_mask=predicted_hard", "--memory.chunk=2"]),
        slow(["--step.gradient=full", "--step.proposal_mask=predicted", "--generator.guidance_scale=3"]),
    ],
    ids=str,
)
def test_a_step_waits_for_the_device_once(waits_of, changes):
    for places in waits_of(*changes):
        assert len(places) == 1, places
