"""Rows of the full-size benchmark: each is a run of `train()` itself, that is, its Trainer, loader, precision, exchange
between ranks and, if torchrun started several processes, DDP. Only the weights are random, and a callback ends the run
once it has measured. full_size_run.py starts this in a process of its own.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import SimpleProfiler

from benchmarks import full_size_data
from benchmarks.full_size_step import frozen_networks, literal, preset
from regionedit.command_line import one_line
from regionedit.config import TrainConfig
from regionedit.dtypes import resolve_training
from regionedit.training import train

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from regionedit.training import RegionTraining

WARM_STEPS, LEAST_STEPS, STAGED_STEPS = 2, 5, 3
"""Steps that are not timed because they compile; steps that are timed at least; steps for the shares of the stages."""


class Measured(NamedTuple):
    """One row.

    Args:
        machine: the GPU's name, or None.
        processes: how many share the work.
        rate: pictures a second, of all processes together.
        peak: GiB of this process's GPU, or None on a CPU.
        loader: share of the time in which this process waited for its loader.
        waits: how often a step waits for the GPU, or None on a CPU.
        stages: the share of each stage; empty until it is known.
    """

    machine: str | None
    processes: int
    rate: float
    peak: float | None
    loader: float
    waits: int | None = None
    stages: str = ""


class Finished(SystemExit):
    """Ends a run that has been measured, without saving it."""


class WaitingProfiler(SimpleProfiler):
    """Lightning's profiler. On a GPU it waits until the work of a stage is done, so that times do not mix."""

    def start(self, action_name: str) -> None:
        wait_for_the_gpu()
        super().start(action_name)

    def stop(self, action_name: str) -> None:
        wait_for_the_gpu()
        super().stop(action_name)


def wait_for_the_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Watch(Callback):
    """Measures a run and ends it.

    Args:
        seconds: how long it times steps; all ranks count the same seconds, so they end in the same step.
        found: called with what is known, first without the stages.
    """

    def __init__(self, seconds: float, found: Callable[[Measured], None]):
        self.seconds, self.found = seconds, found

    def on_train_start(self, trainer: Trainer, module: RegionTraining) -> None:
        self._measurement = self._measure(trainer, module)
        next(self._measurement)

    def on_train_batch_end(self, trainer: Trainer, module: RegionTraining, *of_the_step) -> None:
        next(self._measurement)

    def _measure(self, trainer: Trainer, module: RegionTraining) -> Iterator[None]:
        """Every `yield` waits for the end of a step."""
        gpu = module.device.type == "cuda"
        for _ in range(WARM_STEPS):
            yield
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        steps, since = 0, module.agreement.seconds
        clock = Clock(trainer)
        while steps < LEAST_STEPS or module.agreement.seconds - since < self.seconds:
            yield
            steps += 1
        seconds, loader = clock.read()
        found = Measured(
            machine=torch.cuda.get_device_name(module.device) if gpu else None,
            processes=trainer.world_size,
            rate=steps * module.config.data.global_batch / seconds,
            peak=torch.cuda.max_memory_allocated() / 2**30 if gpu else None,
            loader=loader / seconds,
        )
        self.found(found)
        if gpu:
            with host_waits() as noted:
                yield
            found = found._replace(waits=sum("synchronizing CUDA operation" in str(each.message) for each in noted))
        profiler, clock = WaitingProfiler(), Clock(trainer)
        module.stage = profiler.profile  # in steps of their own, because waiting for each stage would slow down a GPU
        for _ in range(STAGED_STEPS):
            yield
        seconds, loader = clock.read()
        shares = {name: sum(times) / seconds for name, times in profiler.recorded_durations.items()}
        shares["loader"] = loader / seconds
        shares["other"] = 1 - sum(shares.values())  # optimiser, exchange between ranks, Lightning
        self.found(found._replace(stages=", ".join(f"{name} {share:.0%}" for name, share in shares.items())))
        raise Finished


class Clock:
    """Seconds since it was made, and those in which the process waited for its loader."""

    def __init__(self, trainer: Trainer):
        self._loader = trainer.train_dataloader
        self._waited = self._loader.waited
        wait_for_the_gpu()
        self._began = time.perf_counter()

    def read(self) -> tuple[float, float]:
        wait_for_the_gpu()
        return time.perf_counter() - self._began, self._loader.waited - self._waited


@contextmanager
def host_waits() -> Iterator[list[warnings.WarningMessage]]:
    """Notes each operation that makes Python wait for the GPU, by torch's own check."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            yield noted
    finally:
        torch.cuda.set_sync_debug_mode("default")


def row_config(name: str, batch: int, folder: Path, gpu: bool) -> TrainConfig:
    """The preset with its data in `folder`, on this process's device, or on all that torchrun has numbered.

    Args:
        name: of the preset, or `literal`: the paper taken literally at the size of exact512.
        batch: pictures of every process.
    """
    config = literal(preset("exact512")) if name == "literal" else preset(name, compiled=gpu)
    processes, of_node = (int(os.environ.get(variable, 1)) for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    trainer = config.trainer | {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": of_node,
        "num_nodes": processes // of_node,
        "strategy": "ddp" if processes > 1 else "auto",
    }
    if not gpu:
        trainer.pop("precision", None)
    data = full_size_data.where(replace(config.data, global_batch=batch * processes), folder)
    return replace(config, out=str(folder / "run"), max_seconds=0.0, data=data, trainer=trainer)


def measure_row(name: str, batch: int, folder: Path, seconds: float, found: Callable[[Measured], None]) -> None:
    """Write the row's data on the first process of a node, run `train()` until it is measured, and delete all of it.

    Raises:
        Exception: whatever ends the run; SystemExit if another rank failed.
    """
    gpu, rank = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", 0))
    device = f"cuda:{rank}" if gpu else "cpu"
    config = row_config(name, batch, folder, gpu)
    frozen = frozen_networks(config, device)
    try:
        if rank == 0:  # the others read nothing before Lightning has let rank 0 prepare the data
            full_size_data.write(resolve_training(config, torch.device(device)), folder, frozen)
        train(config, [Watch(seconds, found)], frozen)
    except Finished:
        pass
    finally:
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def measure(rows: list[tuple[str, int]], folder: Path, seconds: float, answers: Connection) -> None:
    """Measure rows until one fails. For each row it sends ("found", Measured), perhaps twice, and then ("done", "") or
    ("failed", reason).

    Args:
        rows: names and pictures of every process.
        seconds: for which steps are timed.
    """
    for name, batch in rows:
        try:
            measure_row(name, batch, folder / f"{name}_{batch}", seconds, lambda found: answers.send(("found", found)))
        except (Exception, SystemExit) as error:  # SystemExit: another rank failed and says why
            answers.send(("failed", f"{type(error).__name__}: {one_line(error, 80)}"))
            return
        gc.collect()
        if torch.cuda.is_available():
            torch.compiler.reset()  # compiled code of the row before holds its networks
            torch.cuda.empty_cache()
        answers.send(("done", ""))
