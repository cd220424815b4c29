"""Engines run the workers: in this process, in several processes, or on Ray. Results arrive as they are ready."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

from instruction_shard import Job, ShardResult, ShardWriter
from write_config import WriteConfig
from writers import WriterError

_BLOCKS = 100  # blocks of Ray's rows for each worker: few enough for Ray, enough to balance the load

Work = Callable[[Iterable[Job]], Iterator[ShardResult]]


def engine(config: WriteConfig) -> AbstractContextManager[Work]:
    """A context whose value distributes jobs to workers; each has a `ShardWriter` that lives as long as the context."""
    if config.engine == "ray":
        return on_ray(config)
    return in_this_process(config) if config.workers == 1 else in_processes(config)


@contextmanager
def in_this_process(config: WriteConfig) -> Iterator[Work]:
    """One job after another."""
    with closing(ShardWriter(config)) as worker:
        yield lambda jobs: (worker(*job) for job in jobs)


@contextmanager
def in_processes(config: WriteConfig) -> Iterator[Work]:
    """A pool of processes on this machine."""
    pool = ProcessPoolExecutor(config.workers, multiprocessing.get_context("spawn"), _start, (config, os.getpid()))

    def work(jobs: Iterable[Job]) -> Iterator[ShardResult]:
        left = iter(jobs)  # only some are queued: all at once would be hundreds of thousands
        running = {pool.submit(_work, job) for job in islice(left, 2 * config.workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_work, job) for job in islice(left, len(finished))}
            try:
                yield from (future.result() for future in finished)
            except BrokenProcessPool:
                raise WriterError("a worker process was killed, perhaps out of memory; run again to continue") from None

    try:
        yield work
    finally:
        pool.shutdown(cancel_futures=True)


_worker: ShardWriter | None = None  # set in each process of the pool


def _start(config: WriteConfig, parent: int) -> None:
    global _worker
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker = ShardWriter(config)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone; otherwise it would wait for work forever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(job: Job) -> ShardResult:
    return _worker(*job)


@contextmanager
def on_ray(config: WriteConfig) -> Iterator[Work]:
    """A Ray Data job, on this machine or on a cluster that shares the folder (extra `scale`).

    A row is a shard, and an actor is a worker. The folder's claims still decide which worker writes which shard, so
    that Ray jobs, SLURM arrays and plain commands can run side by side.

    Raises:
        ValueError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError(
            'engine: ray is not installed; pip install "regionedit[scale]", or choose engine local'
        ) from None
    starts = not ray.is_initialized()
    if starts:
        ray.init(address=config.ray_address, log_to_driver=False)

    def work(jobs: Iterable[Job]) -> Iterator[ShardResult]:
        rows = [{"shard": shard, "over": -1 if over is None else over} for shard, over in jobs]
        made = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS * config.workers)).map(
            ShardActor,
            fn_constructor_args=(config,),
            compute=ray.data.ActorPoolStrategy(size=config.workers),
            num_cpus=1,
            num_gpus=config.gpus or None,
        )
        try:
            for row in made.iter_rows():
                yield ShardResult(**json.loads(row["result"]))
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise WriterError(f"ray: {lines[-1].strip() if lines else type(error).__name__}") from None

    try:
        yield work
    finally:
        if starts:
            ray.shutdown()


class ShardActor:
    """Processes one row; the result is returned as JSON, since Ray Data needs columns of one type."""

    def __init__(self, config: WriteConfig):
        self._worker = ShardWriter(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        over = int(row["over"])
        return {"result": json.dumps(asdict(self._worker(str(row["shard"]), over if over >= 0 else None)))}
