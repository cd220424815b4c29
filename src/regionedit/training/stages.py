"""How much time each stage of a step takes: `--profile true`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from regionedit.training.module import RegionTraining


class Stages:
    """Seconds of each stage. On a GPU it waits until the work of a stage is done, so that times do not mix.

    Attributes:
        seconds: by stage, in the order in which they first ended.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] += self.now() - began

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def table(self, steps: int) -> str:
        """Lines with milliseconds per step and the share of the total."""
        whole = sum(self.seconds.values()) or 1.0
        lines = [f"{'stage':<12}{'ms a step':>12}{'share':>9}"]
        for name, seconds in self.seconds.items():
            lines.append(f"{name:<12}{1000 * seconds / max(steps, 1):>12.1f}{seconds / whole:>9.1%}")
        return "\n".join(lines)


class Profile(Callback):
    """Times the stages of every step except the first, which warms up, and prints them at the end.

    `data` is the time spent waiting for the next batch, `rest` the remainder of a step: clipping, the optimiser,
    logging, saving, validation.
    """

    def __init__(self):
        self.steps = 0

    def on_train_start(self, trainer: Trainer, module: RegionTraining) -> None:
        self._stages, self._began = Stages(trainer.strategy.root_device), trainer.global_step
        self._since: float | None = None

    def on_train_batch_start(self, trainer: Trainer, module: RegionTraining, batch, batch_index: int) -> None:
        waited = trainer.train_dataloader.waited
        if self._since is not None:
            self._close(waited)
        if trainer.global_step > self._began:
            module.stage = self._stages
            self._since, self._waited, self._known = self._stages.now(), waited, sum(self._stages.seconds.values())

    def on_before_backward(self, trainer: Trainer, module: RegionTraining, loss) -> None:
        self._backward = self._stages.now()

    def on_after_backward(self, trainer: Trainer, module: RegionTraining) -> None:
        if self._since is not None:
            self._stages.seconds["backward"] += self._stages.now() - self._backward

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, module: RegionTraining) -> None:
        if self._since is not None:
            self._close(trainer.train_dataloader.waited)
            print(f"{self.steps} steps of {module.config.data.global_batch} pictures\n{self._stages.table(self.steps)}")

    def _close(self, waited: float) -> None:
        now, stages = self._stages.now(), self._stages.seconds
        data = waited - self._waited
        stages["data"] += data
        stages["rest"] += max(0.0, now - self._since - (sum(stages.values()) - self._known))
        self.steps += 1
