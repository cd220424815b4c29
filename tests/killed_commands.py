"""Runs a command in a process that has its imports already, and kills it with SIGKILL at a chosen moment.

A moment is a number of changes to the command's output folder (a file opened for writing, renamed or deleted, a folder
made), counted by Python's audit events, and a delay after it. The changes are where a kill can do harm, and unlike
seconds they are the same on every machine.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
IMPORTS = ("regionedit.editor", "regionedit.batch", "regionedit.evaluation.run", "regionedit.training",
           "regionedit.generators.stable_diffusion", "regionedit.mask_sources", "rich.progress",
           "diffusers", "transformers", "open_clip", "matplotlib.pyplot", "tensorboard")  # fmt: skip


class Commands:
    """Starts commands from a server process that has imported torch and the package once."""

    def __init__(self, log: Path):
        self.log = log
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(list(IMPORTS))

    def run(self, words: Sequence[str], out: Path, moment: tuple[int, float] | None = None) -> tuple[int, int, float]:
        """Run `python WORDS`; with a moment (changes, seconds) the process is killed then, unless it ended before.

        Returns:
            The exit code (-9: killed), the number of changes to `out`, and the seconds from the first one to the end.
        """
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = self._server.Process(target=_work, args=(list(words), str(out), moment, theirs, self.log))
        process.start()
        theirs.close()
        changes, first, said = 0, time.monotonic(), None
        while said is None:
            ready = wait([ours, process.sentinel], timeout=300)
            assert ready, f"{words[0]} hangs"
            if ours in ready:
                try:
                    changes, first = ours.recv()
                    if moment:
                        time.sleep(moment[1])
                        process.kill()
                except EOFError:
                    said = True
            else:
                said = True
        process.join()
        return process.exitcode, changes, time.monotonic() - first


def _work(words: list[str], out: str, moment: tuple[int, float] | None, report: Connection, log: Path) -> None:
    """Run the script as `python` would; report when the change with the moment's number is about to happen, or at the end."""
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
            report.send((changes, first))
            if not moment[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    time.perf_counter = lambda: 0.0  # an edit's record holds its duration, and reports show it
    os.chdir(ROOT)
    sys.argv = list(words)
    sys.path.insert(0, str((ROOT / words[0]).parent))
    sys.addaudithook(note)
    try:
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    if not moment:
        report.send((changes, first))
    sys.stdout.flush()
    os._exit(code)
