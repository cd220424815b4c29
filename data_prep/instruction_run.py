"""A run over a folder: give every shard to a worker, take over the shards of dead workers, and sum up the results."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from claims import Claims
from engines import load_engine
from instruction_shard import LEFT_OUT, Job, ShardResult, ShardWriter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from write_config import WriteConfig

from regionedit.data.index import find_shards

_SHOWN = 10  # failed shards that a summary lists with their error


@dataclass
class Summary:
    """What a folder holds after a run, and what the run did.

    Args:
        shards: number of shards by final state.
        samples, written, dropped: totals over all readable shards, including those that were complete before.
        new: samples processed in this run.
        failed: shard -> problem.
        seconds: duration of the run.
    """

    shards: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    new: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, result: ShardResult) -> None:
        self.shards[result.state] += 1
        self.samples += result.samples
        self.written += result.written
        self.dropped.update(result.dropped)
        self.new += result.new
        if result.problem:
            self.failed[result.shard] = result.problem

    @property
    def bad_fraction(self) -> float:
        """Share of the samples that were dropped, or of the shards that failed: the larger of the two."""
        wanted = self.samples - self.dropped[LEFT_OUT]
        bad = self.dropped.total() - self.dropped[LEFT_OUT]
        return max(bad / max(wanted, 1), len(self.failed) / max(self.shards.total(), 1))

    def __str__(self) -> str:
        shards = ", ".join(f"{count} {state}" for state, count in sorted(self.shards.items()))
        rate = self.new / self.seconds if self.seconds else 0.0
        lines = [
            f"shards: {shards}",
            f"samples: {self.samples}, {self.written} with an instruction; {self.new} in this run, {rate:.0f} a second",
            *(f"dropped: {reason}: {count}" for reason, count in self.dropped.most_common()),
            *(f"failed: {problem}" for _, problem in sorted(self.failed.items())[:_SHOWN]),
        ]
        more = len(self.failed) - _SHOWN
        return "\n".join(lines + [f"failed: and {more} more"] * (more > 0))


def run(config: WriteConfig) -> Summary:
    """Write the missing sidecars. When it returns, every shard of the folder is complete or has failed.

    Raises:
        ValueError: no shards, or an unusable setting (WriterSettingError if it shows only when a model is loaded).
        OSError: no space or no permission.
        WriterError: the writer cannot go on.
    """
    if config.workers < 1:
        raise ValueError(f"workers: {config.workers}; give at least 1")
    if config.stale_seconds <= 0:
        raise ValueError(f"stale_seconds: {config.stale_seconds:g}; give a number above 0")
    if not 0 <= config.max_bad_fraction <= 1:
        raise ValueError(f"max_bad_fraction: {config.max_bad_fraction:g}; give a number from 0 to 1")
    ShardWriter(config)  # reports unusable settings before any worker starts
    data, started, summary = Path(config.data), time.monotonic(), Summary()
    shards = own_first(find_shards(data))
    claims, engine = Claims(data, config.stale_seconds), load_engine(config)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    try:
        with Progress(*columns) as progress:
            bar = progress.add_task("shards", total=len(shards))
            jobs: list[Job] = [(shard, None) for shard in shards]
            while jobs:
                held = []
                for result in engine(jobs):
                    if result.state == "held":
                        held.append(result.shard)
                        continue
                    summary.add(result)
                    rate = summary.new / (time.monotonic() - started)
                    progress.update(bar, advance=1, description=f"shards, {rate:.0f} captions/s")
                jobs = _released(claims, held)
    finally:
        engine.close()
    claims.clear()
    summary.seconds = time.monotonic() - started
    return summary


def _released(claims: Claims, held: list[str]) -> list[Job]:
    """Wait until a shard that another worker holds is released or its worker is dead; returns the jobs to run then."""
    while held:
        jobs: list[Job] = []
        for shard in held:
            dead = claims.stale(shard)
            if dead is not None or claims.is_free(shard):
                jobs.append((shard, dead))
        if jobs:
            return jobs + [(shard, None) for shard in held if shard not in dict(jobs)]
        time.sleep(min(1.0, claims.stale_seconds / 20))
    return []


def own_first(shards: tuple[str, ...]) -> list[str]:
    """All shards; a task of a SLURM array starts with its own share, then continues with what others left undone."""
    number = {name: int(os.environ.get(f"SLURM_ARRAY_TASK_{name}") or 0) for name in ("ID", "MIN", "MAX", "COUNT")}
    if number["COUNT"] < 2:
        return [*shards]
    step = max(1, (number["MAX"] - number["MIN"]) // (number["COUNT"] - 1))
    place = (number["ID"] - number["MIN"]) // step * len(shards) // number["COUNT"]
    return [*shards[place:], *shards[:place]]
