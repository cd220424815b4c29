"""What carries shards to workers: this process, several of them, or Ray. Results come as they are ready."""

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

from instruction_shard import ShardResult, ShardWriter
from write_config import WriteConfig
from writer import WriterError

Job = tuple[str, int | None]  # shard, dead claim of it that may be taken over


class Engine(Protocol):
    """Carries jobs to workers, each with a `ShardWriter` of its own that lives as long as the engine."""

    def __call__(self, jobs: Iterable[Job]) -> Iterator[ShardResult]: ...

    def close(self) -> None: ...


def load_engine(config: WriteConfig) -> Engine:
    """The engine of a configuration.

    Raises:
        ValueError: Ray is asked for and not installed.
    """
    if config.engine == "ray":
        from ray_engine import RayEngine

        return RayEngine(config)
    return OneProcess(config) if config.workers == 1 else ManyProcesses(config)


class OneProcess:
    """One after another, here."""

    def __init__(self, config: WriteConfig):
        self._worker = ShardWriter(config)

    def __call__(self, jobs: Iterable[Job]) -> Iterator[ShardResult]:
        yield from (self._worker(*job) for job in jobs)

    def close(self) -> None:
        self._worker.close()


class ManyProcesses:
    """A pool on this machine."""

    def __init__(self, config: WriteConfig):
        self._ahead = 2 * config.workers  # jobs that wait in the pool: hundreds of thousands would be a list of futures
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
                raise WriterError("a worker process was killed, perhaps for want of memory; run again") from None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_worker: ShardWriter | None = None  # of a pool's process


def _start(config: WriteConfig, parent: int) -> None:
    global _worker
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker = ShardWriter(config)


def _end_with(parent: int) -> None:
    """A pool's process would wait for work forever after its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(job: Job) -> ShardResult:
    return _worker(*job)
