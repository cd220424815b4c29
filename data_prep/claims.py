"""Claims: which worker has which shard, for any number of workers that share a folder and nothing else.

A claim is a file `.claims/{shard}.{generation}`, made with O_EXCL, so that one worker makes it. The highest generation
holds the shard; to take one over from a dead worker is to make the next generation, which again one worker can. The
holder adds a byte to its file now and then. A worker is dead when its file has not grown for `stale_seconds` *of the
observer's own clock*: no two machines' clocks, nor any file's time, are ever compared. A dead process of this very
machine is known at once.

A holder that was only stopped (a suspended machine, a stalled file system) finds the higher generation before it writes
and gives way. Between that look and the rename a stall as long as `stale_seconds` could still let two write the same
shard; each write is whole, so that even then no file is damaged.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Self

FOLDER = ".claims"
_BEATS = 8  # signs of life within stale_seconds


class ClaimLost(Exception):
    """Another worker has taken the shard over."""


class Claims:
    """The claims of one folder, as one worker sees them.

    Args:
        data: the folder of the shards.
        stale_seconds: how long another worker may be silent. Above a minute on network file systems, which may tell of
            a change that late.
    """

    def __init__(self, data: Path, stale_seconds: float):
        self.folder, self.stale_seconds = data / FOLDER, stale_seconds
        self._seen: dict[str, tuple[int, int, float]] = {}  # shard -> generation, size, since when (monotonic)

    def take(self, shard: str, over: int | None = None) -> Claim | None:
        """Claim a shard, or None while another worker has it.

        Args:
            over: a generation that `stale` has found dead.

        Raises:
            OSError: no claim can be written.
        """
        held = self._generations(shard)
        if held and held[-1] != over and not _is_dead(self._path(shard, held[-1])):
            return None
        generation = held[-1] + 1 if held else 0
        path = self._path(shard, generation)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except (FileExistsError, FileNotFoundError):  # made by another; its folder just cleared away by another
            return None
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(_this_process()).encode() + b"\n")
        return Claim(self, shard, generation)

    def stale(self, shard: str) -> int | None:
        """The generation that holds a shard if it has been silent for too long; call now and then to find out."""
        held = self._generations(shard)
        if not held:
            return None
        path = self._path(shard, held[-1])
        try:
            size = len(path.read_bytes())  # a network file system looks anew at a file that is opened
        except FileNotFoundError:
            return None
        now, before = time.monotonic(), self._seen.get(shard)
        if before is None or before[:2] != (held[-1], size):
            self._seen[shard] = (held[-1], size, now)
            return held[-1] if _is_dead(path) else None
        return held[-1] if now - before[2] > self.stale_seconds or _is_dead(path) else None

    def is_free(self, shard: str) -> bool:
        """Has nobody claimed it?"""
        return not self._generations(shard)

    def clear(self) -> None:
        """Remove the folder of claims, unless somebody alive holds one; what a killed process left goes with it."""
        try:
            for path in self.folder.iterdir():
                if _is_dead(path):
                    path.unlink(missing_ok=True)
            self.folder.rmdir()
        except OSError:
            pass

    def _generations(self, shard: str) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        found = (name.rpartition(".") for name in names)
        return sorted(int(number) for stem, _, number in found if stem == shard and number.isdecimal())

    def _path(self, shard: str, generation: int) -> Path:
        return self.folder / f"{shard}.{generation}"


class Claim:
    """A shard that this process holds, as a context: signs of life are given until its end, then it is given back."""

    def __init__(self, claims: Claims, shard: str, generation: int):
        self._claims, self.shard, self.generation = claims, shard, generation
        self._end = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._beating.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._beating.join()
        for generation in self._claims._generations(self.shard):
            if generation <= self.generation:
                self._claims._path(self.shard, generation).unlink(missing_ok=True)

    def check(self) -> None:
        """Call before writing.

        Raises:
            ClaimLost: this process was silent for too long and another one has taken over.
        """
        held = self._claims._generations(self.shard)
        if not held or held[-1] != self.generation:
            raise ClaimLost(self.shard)

    def _beat(self) -> None:
        path = self._claims._path(self.shard, self.generation)
        while not self._end.wait(self._claims.stale_seconds / _BEATS):
            try:
                handle = os.open(path, os.O_WRONLY | os.O_APPEND)  # never made anew; closed, so that others see it
                os.write(handle, b".")
                os.close(handle)
            except OSError:  # taken over, or no room: either way others may think this worker dead, and `check` tells
                continue


def _this_process() -> dict[str, str | int]:
    """What identifies a process to others in the same process namespace of the same boot of the same machine."""
    about: dict[str, str | int] = {"host": socket.gethostname(), "pid": os.getpid()}
    try:
        about["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        about["namespace"] = os.readlink("/proc/self/ns/pid")
        about["started"] = _started(os.getpid())[1]
    except OSError:  # not Linux: only silence will tell
        pass
    return about


def _is_dead(path: Path) -> bool:
    """Is the claim's process one of this machine that no longer runs? False where that cannot be known."""
    try:
        about = json.loads(path.read_bytes().partition(b"\n")[0])
        mine = _this_process()
        if "started" not in mine or any(about[name] != mine[name] for name in ("host", "boot", "namespace")):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    try:
        state, started = _started(about["pid"])
    except OSError:
        return True
    return state == "Z" or started != about["started"]


def _started(pid: int) -> tuple[str, str]:
    """State letter and start, in ticks since boot, of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
