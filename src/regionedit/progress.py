"""Progress of long work: a bar on a terminal; in a log file, a line every half minute with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 30.0  # seconds between two lines
Item = TypeVar("Item")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Inside, the value is a function: call it with the number of items that were just finished. Writes to stderr."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    start = printed = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, printed
        done, now = done + count, time.monotonic()
        if done and now - printed >= EVERY:
            minutes = (now - start) / done * (total - done) / 60
            print(f"{title}: {done:,} of {total:,}, {minutes:.0f} min left", file=sys.stderr, flush=True)
            printed = now

    yield advance
    print(f"{title}: {done:,} of {total:,}, {(time.monotonic() - start) / 60:.1f} min", file=sys.stderr, flush=True)


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """The items, with `progress`; an item is finished when the next one is asked for."""
    with progress(title, total) as advance:
        for item in items:
            yield item
            advance(1)
