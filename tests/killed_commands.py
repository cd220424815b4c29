"""Runs commands in processes forked from one that has their imports, and kills them with SIGKILL at a chosen moment.

A moment is a number of changes to the command's output folder (a file opened for writing, renamed or deleted, a folder
made), counted by Python's audit events, and a delay after it. The changes are where a kill can do harm, and unlike
seconds they come in the same order on every machine.

`python -m tests.killed_commands LOG` is the process that forks: it reads a line of JSON for each run, and answers with
one. After each run it imports what that run imported, so that only the first one takes long.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED = -signal.SIGKILL


class Run(NamedTuple):
    """One run: its exit code, or KILLED; the number of changes to the folder, and the seconds from the first to the
    end, both 0 if it was killed."""

    code: int
    changes: int
    seconds: float


class Commands:
    """A context manager that starts commands of the repository; what they print goes into the file `log`."""

    def __init__(self, log: Path):
        self.log = log

    def __enter__(self) -> "Commands":
        places = [str(ROOT), str(ROOT / "src"), str(ROOT / "data_prep"), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.log)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait()

    def run(self, words: Sequence[str], out: Path, moment: tuple[int, float] | None = None) -> Run:
        """Run `python WORDS`, which writes into `out`. With a moment (changes, seconds), kill it then."""
        self._server.stdin.write(json.dumps([list(words), str(out), moment]) + "\n")
        self._server.stdin.flush()
        return Run(*json.loads(self._server.stdout.readline()))


def serve(log: str) -> None:
    for line in sys.stdin:
        words, out, moment = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(printed, stream)
            os._exit(work(words, out, moment, writing))
        os.close(writing)
        said = os.read(reading, 1)  # empty if the process ended before its moment
        if said and moment:
            time.sleep(moment[1])
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reading) as rest:
            report = json.loads(rest.read() or "null")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        changes, seconds, modules = report or (0, 0.0, [])
        print(json.dumps([code, changes, seconds]), flush=True)
        for name in modules:
            with suppress(Exception):
                importlib.import_module(name)


def work(words: list[str], out: str, moment: tuple[int, float] | None, report: int) -> int:
    """Run a script as `python` would, in this process; says a byte at its moment, and at its end what a Run holds."""
    changes, first = 0, 0.0

    def note(event: str, arguments: tuple) -> None:
        nonlocal changes, first
        if event == "open":
            if not (isinstance(arguments[0], str) and arguments[2] & WRITES):
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if not os.path.abspath(os.fsdecode(arguments[0])).startswith(out):
            return
        first = first or time.monotonic()
        changes += 1
        if moment and changes == moment[0]:
            os.write(report, b" ")
            if not moment[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    time.perf_counter = lambda: 0.0  # an edit's record holds its duration, and reports show it
    sys.argv = list(words)
    sys.path.insert(0, str((ROOT / words[0]).parent))
    before = set(sys.modules)
    sys.addaudithook(note)
    try:
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    sys.stdout.flush()
    new = sorted(sys.modules.keys() - before)
    os.write(report, b" " + json.dumps([changes, time.monotonic() - first, new]).encode())
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
