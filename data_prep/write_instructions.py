"""Write an instruction and a target caption for each caption of a crawl, beside its shards, by any number of workers.

    vllm serve Qwen/Qwen2.5-7B-Instruct        # or any other OpenAI-compatible server
    python data_prep/write_instructions.py --data data/crawl --model Qwen/Qwen2.5-7B-Instruct
    python data_prep/write_instructions.py --data data/crawl --source instructions --endpoint.url https://ADDRESS/v1

`data` holds shards as img2dataset writes them. Every `{shard}.tar` gets a `{shard}.instructions.jsonl`: a header that
records the writer and its settings, then a line for every key. If two attempts fail for a sample, its line gives the
reason, and training skips the sample. Run the command again to continue. Start it several times, on several machines or
as a SLURM array, and the workers share the shards. `--engine ray` does the same as a Ray Data job.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from claims import Claims
from engines import engine
from instruction_shard import LEFT_OUT, Job, ShardResult, ShardWriter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from write_config import WriteConfig

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.data.shard_names import find_shards
from regionedit.files import remove_leftovers

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
    jobs: list[Job] = [(shard, None) for shard in own_first(find_shards(data, allow_gaps=True))]
    claims = Claims(data, config.stale_seconds)
    remove_leftovers(data)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with engine(config) as work, Progress(*columns) as progress:
        bar = progress.add_task("shards", total=len(jobs))
        while jobs:
            held = []
            for result in work(jobs):
                if result.state == "held":
                    held.append(result.shard)
                    continue
                summary.add(result)
                rate = summary.new / (time.monotonic() - started)
                progress.update(bar, advance=1, description=f"shards, {rate:.0f} captions/s")
            jobs = _released(claims, held)
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


def main() -> int:
    config = parse_command(WriteConfig)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by schedulers: release the claims
    with errors_in_one_line("write_instructions.py"):
        summary = run(config)
    print(summary)
    if summary.bad_fraction > config.max_bad_fraction:
        print(
            f"write_instructions.py: max_bad_fraction: {summary.bad_fraction:.1%} are bad, more than "
            f"{config.max_bad_fraction:.1%}; repair the shards, try another prompt or model, or raise the limit",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
