"""Engines run the workers: in this process, in several processes, or on Ray. Results arrive as they are ready."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Protocol

from instruction_shard import Job, ShardResult, ShardWriter
from write_config import WriteConfig
from writer import WriterError


class Engine(Protocol):
    """Distributes jobs to workers. Each worker has its own `ShardWriter`, which lives as long as the engine."""

    def __call__(self, jobs: Iterable[Job]) -> Iterator[ShardResult]: ...

    def close(self) -> None: ...


def load_engine(config: WriteConfig) -> Engine:
    """The engine of a configuration.

    Raises:
        ValueError: the configuration wants Ray, and Ray is not installed.
    """
    if config.engine == "ray":
        from ray_engine import RayEngine

        return RayEngine(config)
    return OneProcess(config) if config.workers == 1 else ManyProcesses(config)


class OneProcess:
    """Runs the jobs one after another in this process."""

    def __init__(self, config: WriteConfig):
        self._worker = ShardWriter(config)

    def __call__(self, jobs: Iterable[Job]) -> Iterator[ShardResult]:
        yield from (self._worker(*job) for job in jobs)

    def close(self) -> None:
        self._worker.close()


class ManyProcesses:
    """Runs the jobs in a pool of processes on this machine."""

    def __init__(self, config: WriteConfig):
        self._ahead = 2 * config.workers  # jobs queued in the pool; all at once would be hundreds of thousands
        self._pool = ProcessPoolExecutor(
            config.workers, multiprocessing.get_context("spawn"), _start, (config, os.getpid())
        )

    def __call__(self, jobs: Iterable[Job]) -> Iterator[ShardResult]:
        left = iter(jobs)
        running = {self._pool.submit(_work, job) for job in islice(left, self._ahead)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {self._pool.submit(_work, job) for job in islice(left, len(finished))}
            try:
                yield from (future.result() for future in finished)
            except BrokenProcessPool:
                raise WriterError("a worker process was killed, perhaps out of memory; run again to continue") from None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


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
