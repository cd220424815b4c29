"""What the benchmarks share: checked options, seconds of a call, medians of alternating rounds, and peak memory."""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

COUNTED = "counted on the meta device, no machine"


def options(description: str) -> argparse.ArgumentParser:
    """A parser that shows the benchmark's docstring as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that must be an integer of at least this."""

    def count(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}, but must be at least {least}")
        return int(text)

    return count


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a call by a clock."""
    began = clock()
    call()
    return clock() - began


def medians(*measured: Callable[[], float], rounds: int) -> list[float]:
    """The median of each measurement over rounds in which all take turns."""
    found = [[measure() for measure in measured] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*found, strict=True)]


def peak_mebibytes() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
