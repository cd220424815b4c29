"""The table of `benchmarks.train_step --full_size true`: starts the rows, limits their time, writes after each.

Rows run one after the other in one process beside this one. If a row fails or takes too long, that process ends, and
the other rows run in a new one: what a row leaves behind on a GPU cannot spoil them. Under torchrun, each rank does so.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.harness import PRESETS
from regionedit.files import write_atomic

if TYPE_CHECKING:
    from benchmarks.full_size_rows import Measured

LITERAL = "literal"
"""The baseline, which runs last and is tried again with half of the pictures if it fails."""

ROWS = (*PRESETS, LITERAL)

TIMED_SECONDS = 15.0
NOT_RUN = "not run: no time was left"
SPAWN = multiprocessing.get_context("spawn")
"""CUDA does not survive a fork."""
PEAK_TFLOPS = {"A100": 312, "H100": 989, "H200": 989}
"""Dense bfloat16, from NVIDIA's data sheets; TF32 has half of it."""

HEAD = ("preset", "batch", "pictures/s", "peak GiB", "of the peak", "waits for the loader", "host waits", "stages")


def run(
    batch: int, baseline_batch: int, seconds: float, row_seconds: float, out: Path, chosen: Sequence[str] = ROWS
) -> None:
    """Measure the chosen rows, the literal baseline last; the first rank writes the table after each.

    Args:
        batch, baseline_batch: pictures of every process in a step of the presets, and of the baseline to begin with.
        seconds: for everything; rows that have not begun then do not run.
        row_seconds: for one row; a longer one is ended.
    """
    first = os.environ.get("RANK", "0") == "0"
    queue = [(name, baseline_batch if name == LITERAL else batch) for name in ROWS if name in chosen]
    rows = {name: (str(pictures), NOT_RUN) for name, pictures in queue}
    measured: dict[str, Measured] = {}

    def note(name: str, pictures: int, found: Measured | str) -> None:
        if isinstance(found, str):
            if name not in measured:
                rows[name] = str(pictures), found
        else:
            measured[name], rows[name] = found, cells(name, pictures, found)
        if first:
            write_atomic(out, table(rows, list(measured.values())).encode())

    note(*queue[0], NOT_RUN)
    with _folder() as folder:
        _all_rows(queue, folder, time.monotonic() + seconds, row_seconds, note)
    if first:
        print(out.read_text())
        _record(measured)


def _all_rows(
    queue: list[tuple[str, int]],
    folder: Path,
    end: float,
    row_seconds: float,
    note: Callable[[str, int, Measured | str], None],
) -> None:
    started = 0
    while queue and time.monotonic() < end:
        started += 1
        with _process(queue, folder, started) as answers:
            began = time.monotonic()
            while queue:
                name, pictures = queue[0]
                kind, content = _receive(answers, min(end, began + row_seconds))
                if kind == "found":
                    note(name, pictures, content)
                    continue
                queue.pop(0)
                took, began = time.monotonic() - began, time.monotonic()
                if kind == "failed":
                    note(name, pictures, content)
                    if name == LITERAL and pictures > 1:
                        queue.append((LITERAL, pictures // 2))
                    break
                if kind == "late":
                    note(name, pictures, f"ended after {took:.0f} s")
                    break


@contextmanager
def _process(queue: Sequence[tuple[str, int]], folder: Path, number: int) -> Iterator[Connection]:
    """A process that measures the rows of the queue; it is killed at the end."""
    environment = {"XDG_CACHE_HOME": str(folder / "cache")}  # for the manifests
    if "MASTER_PORT" in os.environ:  # the store of torchrun still knows the ranks of the process before
        port = str(int(os.environ["MASTER_PORT"]) + number)
        environment |= {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False"}
    answers, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_measure, args=(list(queue), folder, TIMED_SECONDS, environment, theirs))
    process.start()
    theirs.close()
    try:
        yield answers
    finally:
        process.kill()
        process.join()


def _measure(rows: list[tuple[str, int]], folder: Path, seconds: float, environment: dict, answers: Connection) -> None:
    os.environ |= environment
    from benchmarks.full_size_rows import measure  # imports torch and all else, which the process before does not need

    multiprocessing.set_start_method("fork", force=True)  # loader processes, as in training; here it would be spawn
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    measure(rows, folder, seconds, answers)


def _receive(answers: Connection, limit: float) -> tuple[str, Any]:
    try:
        if answers.poll(max(0.0, limit - time.monotonic())):
            return answers.recv()
    except EOFError:
        return "failed", "its process died"
    return "late", ""


@contextmanager
def _folder() -> Iterator[Path]:
    """A new folder for data and runs, the same for all ranks of a node; the first of them deletes it."""
    ranked = "LOCAL_RANK" in os.environ
    folder = Path(tempfile.gettempdir()) / f"full_size_{os.getppid() if ranked else os.getpid()}"
    try:
        yield folder
    finally:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            shutil.rmtree(folder, ignore_errors=True)


def counted(name: str) -> tuple[float, float]:
    """TFLOP a picture in bfloat16 and in float32, as `benchmarks.step_cost` has counted them."""
    results = json.loads(harness.RESULTS.read_text())
    whole = results["step_exact512"]["baseline"] if name == LITERAL else results[f"step_{name}"]["ours"]
    in_float32 = results[f"step_{'exact512' if name == LITERAL else name}_float32"]["ours"]
    return whole - in_float32, in_float32


def cells(name: str, pictures: int, found: Measured) -> tuple[str, ...]:
    """The row of the table after the preset's name."""
    peak = "" if found.peak is None else f"{found.peak:.1f}"
    waits = "" if found.waits is None else str(found.waits)
    known = next((t for part, t in PEAK_TFLOPS.items() if part in (found.machine or "")), None)
    share = ""
    if known is not None:
        bfloat16, float32 = counted(name)
        share = f"{(bfloat16 / known + float32 / (known / 2)) * found.rate / found.processes:.0%}"
    return str(pictures), f"{found.rate:.3g}", peak, share, f"{found.loader:.0%}", waits, found.stages


def table(rows: dict[str, tuple[str, ...]], measured: Sequence[Measured]) -> str:
    """All rows in Markdown; the batch is that of each process, the pictures a second are those of all."""
    where = f" on {_where(measured[0])}" if measured else ""
    lines = [f"Steps of train(){where}, random weights. `batch` is that of one process.", ""]
    lines += [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for name, row in rows.items():
        lines.append(f"| {' | '.join([name, *row, *[''] * (len(HEAD) - 1 - len(row))])} |")
    return "\n".join(lines) + "\n"


def _where(found: Measured) -> str:
    return f"{found.processes} x {found.machine or 'CPU'}"


def _record(measured: dict[str, Measured]) -> None:
    if baseline := measured.get(LITERAL):
        for name in measured.keys() - {LITERAL}:
            found = measured[name]
            machine = _where(found) if found.machine else None
            harness.record(f"train_step_{name}_full_size", found.rate, baseline.rate, "pictures/s", machine)
