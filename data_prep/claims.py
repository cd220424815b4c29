"""Claims decide which worker works on which shard, for any number of workers that share nothing but a folder.

A claim is a file `.claims/{shard}.{generation}`, created with O_EXCL, so that only one worker can create it. The worker
with the highest generation holds the shard. To take a shard over from a dead worker, another worker creates the next
generation, and again only one can. The holder regularly appends a byte to its file (a heartbeat). A worker counts as
dead if its file has not grown for `stale_seconds` *on the observer's own clock*: the code never compares the clocks of
two machines, nor file times. A dead process on the same machine is detected at once.

A holder that was merely paused (a suspended machine, a stalled file system) checks for a higher generation before it
writes and gives up if there is one. A pause of `stale_seconds` between this check and the rename could still let two
workers write the same shard. Each write is atomic, so that even then no file is damaged.
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
_BEATS = 8  # heartbeats within stale_seconds


class ClaimLost(Exception):
    """Another worker has taken the shard over."""


class Claims:
    """The claims of one folder, as one worker sees them.

    Args:
        stale_seconds: how long another worker may go without a heartbeat. Use more than a minute on network file
            systems, which may show a change that late.
    """

    def __init__(self, data: Path, stale_seconds: float):
        self.folder, self.stale_seconds = data / FOLDER, stale_seconds
        self._seen: dict[str, tuple[int, int, float]] = {}  # shard -> generation, size, since when (monotonic)

    def take(self, shard: str, over: int | None = None) -> Claim | None:
        """Claim a shard; None while another worker holds it.

        Args:
            over: a generation that `stale` reported as dead.

        Raises:
            OSError: the claim cannot be written.
        """
        held = self._generations(shard)
        if held and held[-1] != over and not _is_dead(self._path(shard, held[-1])):
            return None
        generation = held[-1] + 1 if held else 0
        path = self._path(shard, generation)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except (FileExistsError, FileNotFoundError):  # another worker created it, or just removed the folder
            return None
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(_this_process()).encode() + b"\n")
        return Claim(self, shard, generation)

    def stale(self, shard: str) -> int | None:
        """The generation that holds a shard, if its worker is dead; call repeatedly until it reports one."""
        held = self._generations(shard)
        if not held:
            return None
        path = self._path(shard, held[-1])
        try:
            size = len(path.read_bytes())  # opening makes a network file system refresh what it knows of the file
        except FileNotFoundError:
            return None
        now, before = time.monotonic(), self._seen.get(shard)
        if before is None or before[:2] != (held[-1], size):
            self._seen[shard] = (held[-1], size, now)
            return held[-1] if _is_dead(path) else None
        return held[-1] if now - before[2] > self.stale_seconds or _is_dead(path) else None

    def is_free(self, shard: str) -> bool:
        """True if no worker has claimed the shard."""
        return not self._generations(shard)

    def clear(self) -> None:
        """Delete the claims of dead processes, and the folder of claims if no live worker holds one."""
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
    """A context manager for a shard that this process holds: it sends heartbeats, and releases the shard at the end."""

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
            ClaimLost: this process sent no heartbeat for too long, and another one has taken over.
        """
        held = self._claims._generations(self.shard)
        if not held or held[-1] != self.generation:
            raise ClaimLost(self.shard)

    def _beat(self) -> None:
        path = self._claims._path(self.shard, self.generation)
        while not self._end.wait(self._claims.stale_seconds / _BEATS):
            try:
                # without O_CREAT: a lost claim must not reappear; closed at once: other machines see the new size
                handle = os.open(path, os.O_WRONLY | os.O_APPEND)
                os.write(handle, b".")
                os.close(handle)
            except OSError:  # the claim was taken over, or the disk is full; `check` finds out before the next write
                continue


def _this_process() -> dict[str, str | int]:
    """Identifies this process to others on the same machine, in the same boot and the same process namespace."""
    about: dict[str, str | int] = {"host": socket.gethostname(), "pid": os.getpid()}
    try:
        about["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        about["namespace"] = os.readlink("/proc/self/ns/pid")
        about["started"] = _started(os.getpid())[1]
    except OSError:  # not Linux: only missing heartbeats reveal a dead process
        pass
    return about


def _is_dead(path: Path) -> bool:
    """True if the claim's process ran on this machine and no longer runs; False where that cannot be known."""
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
    """A process's state letter and its start time in ticks since boot."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
