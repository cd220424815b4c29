"""What the benchmarks share: options, times, peak memory, and the record in results.json and RESULTS.md."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from regionedit.files import write_atomic

COUNTED = "counted on the meta device, no machine"
PRESETS = ("stored", "max256", "paper256", "fast512", "exact512")
"""configs/train_sd15_*.yaml that the benchmarks compare, from the cheapest to the dearest."""

RESULTS = Path(__file__).with_name("results.json")


def options(description: str, **numbers: tuple[int, int, str]) -> argparse.ArgumentParser:
    """A parser that shows the benchmark's docstring as it is, with integer options: name=(default, least, meaning)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, least, meaning) in numbers.items():
        text = f"{meaning}; {default}, at least {least}"
        parser.add_argument(f"--{name}", type=_at_least(least), default=default, help=text)
    return parser


def _at_least(least: int) -> Callable[[str], int]:
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
    """Peak memory of this process in MiB; getrusage would include the process that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def in_own_process(measure: Callable, *given: object):
    """The result of a call in a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *given).result()


def script(*arguments: object, threads: int = 1) -> subprocess.Popen:
    """Start one of the repository's Python programs, offline and quiet."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL)


def finish(*processes: subprocess.Popen) -> None:
    """Wait for processes; end the benchmark if one failed."""
    if failed := [process.args[1] for process in processes if process.wait()]:
        raise SystemExit(f"{failed[0]} failed; see above")


def pack_train(folder: Path, samples: int, shard_size: int = 1000) -> Path:
    """Pack training samples of the microworld."""
    out = folder / "train"
    sizes = ("--samples", samples, "--shard_size", shard_size)
    finish(script("data_prep/microworld/pack.py", "--split", "train", *sizes, "--out", out))
    return out


def record(name: str, ours: float, baseline: float, unit: str, machine: str | None = None) -> float:
    """Print one result and replace the previous one of the same name; returns ours / baseline.

    Args:
        machine: None describes this machine; a count that does not depend on a machine gives a text that says so.
    """
    machine = machine or f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    ratio = ours / baseline
    print(f"{name}: {ours:.4g} against {baseline:.4g} {unit}, ratio {ratio:.4g} ({machine})")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {"ratio": ratio, "ours": ours, "baseline": baseline, "unit": unit, "machine": machine}
    write_atomic(RESULTS, (json.dumps(results, indent=2, sort_keys=True) + "\n").encode())
    write_atomic(RESULTS.with_name("RESULTS.md"), _page(results).encode())
    return ratio


def _page(results: dict[str, dict]) -> str:
    """All results with one row each."""
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench` and by each benchmark, whose file says at its top what is compared. Ratio: ours to",
        "the baseline of the same run.",
        "",
        "| | ours | baseline | unit | ratio | machine |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in sorted(results.items()):
        lines.append(
            f"| {name} | {r['ours']:.4g} | {r['baseline']:.4g} | {r['unit']} | {r['ratio']:.3g} | {r['machine']} |"
        )
    return "\n".join(lines) + "\n"
