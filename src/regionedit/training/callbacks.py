"""Callbacks of a run: stopping and saving, the progress bar, scalars in a CSV, the picture grid."""

from __future__ import annotations

import csv
import io
import math
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from regionedit import display, images, masks
from regionedit.files import write_atomic
from regionedit.training.micro_batches import SHOWN

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from regionedit.training.agreement import Agreement
    from regionedit.training.module import RegionTraining

LAST = "last.ckpt"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(SystemExit):
    """A signal stopped the run, and everything is saved; the exit code is the shell's for that signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint whole or not at all; Lightning's own class copies it from another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(path, buffer.getvalue())


class SaveAndStop(Checkpoint):
    """Saves a resumable checkpoint, last.ckpt, every few steps, at the end, and when a signal stops the run.

    If a step is followed by validation, the checkpoint is saved after it: else a run that is killed in between would
    resume without the scores of that step, and would not know its best weights. Lightning calls checkpoint callbacks
    last, in their order; this one comes after the one that keeps the best weights.
    """

    def __init__(self, folder: Path, every_steps: int):
        self.folder, self.every_steps = folder, every_steps
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: RegionTraining) -> None:
        module.agreement.signal = 0
        if threading.current_thread() is not threading.main_thread():  # Python allows no handlers elsewhere
            return
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, partial(self._on_signal, module.agreement))

    def on_train_batch_end(self, trainer: Trainer, module: RegionTraining, outputs, batch, batch_index: int) -> None:
        module.completed = module.progress()
        trainer.should_stop = trainer.should_stop or module.completed >= 1
        loop = trainer.fit_loop
        if not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._end_step(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: RegionTraining) -> None:
        self._end_step(trainer, module)

    def _end_step(self, trainer: Trainer, module: RegionTraining) -> None:
        stop = module.agreement.stop  # equal on all ranks, so that all end with the same exit code
        finished = module.completed >= 1
        if stop or finished or trainer.global_step % self.every_steps == 0:
            trainer.save_checkpoint(self.folder / LAST)
        if stop and not finished:
            raise Stopped(stop)

    def teardown(self, trainer: Trainer, module: RegionTraining, stage: str) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _on_signal(self, agreement: Agreement, number: int, frame) -> None:
        agreement.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once


class Scalars(Callback):
    """Logs loss terms, region statistics, learning rate, speed and the share of time that this rank waits for data.

    Loss terms and statistics are means over the ranks. `self.log` is not used, because it would miss the step after
    which a run stops.
    """

    def __init__(self, every_steps: int, global_batch: int):
        self.every_steps, self.global_batch = every_steps, global_batch
        self.latest: dict[str, float] = {}  # the values logged last
        self._since: tuple[int, float, float] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, module: RegionTraining, outputs: dict, batch, batch_index: int
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        waited = trainer.train_dataloader.waited
        self._since = self._since or (step, now, waited)
        if step % self.every_steps:
            return
        probability_BN = outputs["probability"]
        values = {
            "loss": outputs["loss"],
            **outputs["terms"],
            "region_area": probability_BN.mean(),
            "region_above_threshold": (probability_BN > module.config.step.threshold).float().mean(),
            "gradient_norm": module.gradient_norm,
        }
        means = trainer.strategy.reduce(torch.stack([v.detach().float() for v in values.values()]), reduce_op="mean")
        self.latest = dict(zip(values, means.tolist(), strict=True))
        self.latest |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "seconds": module.seconds()}
        if step > self._since[0]:
            seconds = now - self._since[1]
            self.latest["images_per_second"] = (step - self._since[0]) * self.global_batch / seconds
            self.latest["data_wait"] = (waited - self._since[2]) / seconds
        self._since = step, now, waited
        for logger in trainer.loggers:
            logger.log_metrics({f"train/{name}": value for name, value in self.latest.items()}, step)


class Bar(Callback):
    """One progress bar for the whole run, with the latest scalars; without a terminal, an occasional line."""

    SHORT = {
        "loss": "loss",
        "clip_guidance": "guide",
        "clip_direction": "direct",
        "clip_structure": "struct",
        "region_area": "area",
        "images_per_second": "img/s",
        "data_wait": "wait",
    }

    def __init__(self, scalars: Scalars):
        self.scalars, self.console = scalars, Console()
        self._progress: Progress | None = None

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, module: RegionTraining) -> None:
        columns = (
            TextColumn("training"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task = self._progress.add_task("", total=module.config.max_steps, terms="")
        self._progress.start()

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, module: RegionTraining, outputs, batch, batch_index: int) -> None:
        step, config = trainer.global_step, module.config
        total = config.max_steps
        if config.max_seconds:  # then extrapolate from the speed so far
            total = min(total, round(step * config.max_seconds / module.seconds()))
        terms = " ".join(f"{short} {self.scalars.latest.get(name, 0):.3g}" for name, short in self.SHORT.items())
        self._progress.update(self._task, completed=step, total=max(step, total), terms=terms)
        if not self.console.is_terminal and step % (10 * config.log.every_steps) == 0:
            minutes = (total - step) / step * module.seconds() / 60  # over all resumptions
            self.console.print(
                f"step {step} of {total}: {terms}, {minutes:.0f} min left", highlight=False, soft_wrap=True
            )

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, module: RegionTraining) -> None:
        scores = {k.removeprefix("validation/"): float(v) for k, v in trainer.callback_metrics.items()}
        words = " ".join(f"{k} {v:.3g}" for k, v in scores.items() if k != "step" and k.count("/") == 0)
        self.console.print(f"step {trainer.global_step}: validation {words}", highlight=False, soft_wrap=True)

    def teardown(self, trainer: Trainer, module: RegionTraining, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()


class Pictures(Callback):
    """Writes a grid of source, probability, composed picture and proposal to step_000200.png and TensorBoard."""

    def __init__(self, folder: Path, every_steps: int):
        self.folder, self.every_steps = folder, every_steps

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, module: RegionTraining, outputs: dict, batch, batch_index: int
    ) -> None:
        if trainer.global_step % self.every_steps:
            return
        pictures = outputs["pictures"]
        probability_BN = outputs["probability"][:SHOWN]
        size = tuple(pictures["source"].shape[-2:])
        columns = {
            "source": pictures["source"],
            "probability": masks.upsample(probability_BN, math.isqrt(probability_BN.shape[1]), size),
            "composed": pictures["composed"],
            "proposal": pictures["proposal"],
        }
        shown = [images.to_pictures(column[:SHOWN]) for column in columns.values()]
        sheet = display.grid(list(zip(*shown, strict=True)), tuple(columns))
        write_atomic(self.folder / f"step_{trainer.global_step:06d}.png", images.png(sheet))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                grid_CHW = images.to_tensor([sheet])[0]
                logger.experiment.add_image("pictures", grid_CHW, trainer.global_step)


class LongCsv(Logger):
    """Writes scalars as rows `step,name,value` into one file. A resumed run continues it after the step `resumed_at`;
    later rows of the interrupted run are dropped."""

    def __init__(self, path: Path, resumed_at: int = 0):
        super().__init__()
        self.path, self.resumed_at = path, resumed_at
        self._file = None

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """Does nothing: the resolved configuration is written elsewhere."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self._file is None:
            self._open()
        writer = csv.writer(self._file)
        writer.writerows((step, name, value) for name, value in metrics.items() if name != "epoch")
        self._file.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        kept: list[Sequence[str]] = []
        if self.path.exists() and self.resumed_at:
            with self.path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if row[0].isdigit() and int(row[0]) <= self.resumed_at]
        rows = io.StringIO(newline="")
        csv.writer(rows).writerows([("step", "name", "value"), *kept])
        write_atomic(self.path, rows.getvalue().encode())  # kept rows are never missing, even if this run is killed
        self._file = self.path.open("a", newline="")
