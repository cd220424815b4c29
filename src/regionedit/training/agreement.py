"""What all ranks agree on once a step, in one reduction: whether to stop, whether one of them failed, the time."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.distributed
from lightning.pytorch import Callback
from torch import Tensor

from regionedit.command_line import one_line
from regionedit.device import send

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from regionedit.training.module import RegionTraining

LONGEST_REASON = 600


class FailedElsewhere(RuntimeError):
    """Another rank failed; the message is its reason."""


class Agreement(Callback):
    """Exchanges signals, failures and seconds between all ranks, once a step; must be the run's last callback.

    A rank that failed alone would leave the others waiting in their next collective operation. So a step computes its
    gradient without any, and `exchange` comes before the gradients are averaged. A rank in which an exception was
    raised before that, also while it waited for data, takes part in the exchange from `on_exception`. Then every rank
    ends with the reason of the first rank that failed. Failures at another time, as in saving a file, end the rank
    alone; torchrun and SLURM then end the others.

    Attributes:
        signal: number of the signal that this process received, 0 for none; whoever handles signals sets it.
        stop: the highest number that any rank had received by the last exchange, 0 for none.
        seconds: the longest training time of all ranks at the last exchange, in seconds.
    """

    def __init__(self):
        self.signal = self.stop = 0
        self.seconds = 0.0
        self._next = False  # whether the next collective operation of the other ranks is the exchange

    def exchange(self, seconds: float, finite: Tensor, failure: Callable[[], Exception | None]) -> None:
        """The one exchange of a step, and on a GPU the one time that it waits for the device.

        Args:
            seconds: of training, on this rank.
            finite: bool scalar: whether this rank's loss and gradient are finite.
            failure: called only after a rank failed: this rank's own failure, or None.

        Raises:
            Exception: what `failure` returned. On ranks without a failure of their own: FailedElsewhere or ValueError
                with the reason of the first rank that failed, on the first rank; SystemExit, in silence, on the others.
        """
        failed = self._reduce(seconds, ~finite)
        self._next = False
        if failed:
            own = failure()
            first, reason, code = self._first_reason(own)
            if own is not None:
                raise own
            if torch.distributed.get_rank():
                raise SystemExit(code)
            raise (ValueError if code == 2 else FailedElsewhere)(f"rank {first}: {reason}")

    def on_train_batch_start(self, *args) -> None:
        self._next = True

    def on_train_batch_end(self, *args) -> None:
        self._next = True  # because the next batch may not be readable

    def on_validation_start(self, *args) -> None:
        self._next = False

    def on_exception(self, trainer: Trainer, module: RegionTraining, exception: BaseException) -> None:
        if self._next and isinstance(exception, Exception) and trainer.world_size > 1:
            self._next = False
            traceback.clear_frames(exception.__traceback__)  # frees the memory that a step had run out of
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._reduce(0.0, torch.tensor(True, device=module.device))
            self._first_reason(exception)

    def _reduce(self, seconds: float, failed: Tensor) -> bool:
        values = send(torch.tensor([self.signal, 0.0, seconds]), failed.device)
        values[1] = failed
        if _several_ranks():
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        stop, any_failed, self.seconds = values.tolist()
        self.stop = int(stop)
        return bool(any_failed)

    def _first_reason(self, own: Exception | None) -> tuple[int, str, int]:
        """Rank, reason and exit code of the first rank that failed."""
        entry = None if own is None else (_reason(own), 2 if isinstance(own, ValueError) else 1)
        entries = [entry]
        if _several_ranks():
            entries = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(entries, entry)
        return next((rank, *entry) for rank, entry in enumerate(entries) if entry)


def _reason(error: Exception) -> str:
    line = one_line(error, LONGEST_REASON)
    return line if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {line}"


def _several_ranks() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
