"""Writes files and finds out whether they exist.

Writes are atomic: a reader never finds half a file, even after a crash or on a full disk. A process that is killed
while it writes leaves a temporary file, which the next run of its command deletes (`remove_leftovers`).
"""

from __future__ import annotations

import fcntl
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 255  # bytes of a file's name
LEFTOVER = re.compile(r"\..+\.\d+\.part")
"""Name of a temporary file: that of the file to be written, and the number of the process."""


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one file whole or not at all: temporary file, fsync, rename.

    Raises OSError: no room, no permission; the message names the path and nothing is left behind.
    """
    path = Path(path)
    write_together(path.parent, {path.name: data})


def write_together(folder: str | Path, files: Mapping[str, bytes], obsolete: Collection[str] = ()) -> None:
    """Write several files of one folder, all or none: every byte is on disk before the first rename.

    The files appear in the mapping's order, and an earlier version of the last one is deleted before: if the last one
    exists, all of them do and belong together.

    Args:
        obsolete: names of files that are deleted, unless they are written.

    Raises OSError: no room, no permission; the message names the folder and nothing is left behind.
    """
    folder = Path(folder)
    existed = folder.is_dir()
    temporaries: list[tuple[Path, Path]] = []
    new: list[Path] = []
    try:
        with ExitStack() as locked:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                temporaries.append((_temporary(folder / name), folder / name))
                file = locked.enter_context(_open_locked(temporaries[-1][0]))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            outdated = [folder / name for name in obsolete if name not in files]
            outdated += [final for _, final in temporaries[1:][-1:]]  # of several files the last
            for path in reversed(outdated):
                path.unlink(missing_ok=True)
            for temporary, final in temporaries:
                existed_before = final.exists()
                temporary.replace(final)
                new += [] if existed_before else [final]
            new.clear()  # all are there
            _fsync_folder(folder)
    except OSError as error:
        for path in (*new, *(temporary for temporary, _ in temporaries)):
            path.unlink(missing_ok=True)
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise OSError(error.errno, f"cannot write to {folder}: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is written bit by bit and appears under its name only when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with _open_locked(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path, below: bool = False) -> None:
    """Delete the temporary files of killed processes in a folder, which need not exist; `below`: also in its folders.

    What a running process writes is kept: it holds a lock, which ends with the process. Where the file system has no
    locks, everything is kept.
    """
    for path in Path(folder).glob("**/.*.part" if below else ".*.part"):
        if LEFTOVER.fullmatch(path.name):
            with suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _open_locked(temporary: Path) -> BinaryIO:
    """A new file, locked until it is closed."""
    while True:
        file = temporary.open("wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # `remove_leftovers` deleted it before it was locked


def require_writable(folder: str | Path) -> None:
    """Check before the work that files can be written into a folder, which need not exist yet.

    Raises ValueError: a file is in its place, a name is too long, or there is no permission.
    """
    folder = Path(folder).absolute()
    if "\0" in str(folder) or any(len(os.fsencode(part)) > LONGEST_NAME for part in folder.parts):
        raise ValueError(f"out: {str(folder)[:80]!r}... is no name that a folder can have; choose a shorter one")
    place = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not place.is_dir():
        raise ValueError(f"out: {place} is a file; a folder is needed")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"out: no permission to write into {place}; choose another folder")


def is_file(path: str | Path) -> bool:
    """Whether this is a file; False also for a name that no file can have, such as one that is too long."""
    return os.path.isfile(path)  # `Path.is_file` raises OSError there


def folder_key(name: str) -> str:
    """The name as disks see it that ignore case and the two ways of writing an accent, as those of macOS do."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_folder(path: str | Path) -> bool:
    """Whether this is a folder; False also for a name that none can have."""
    return os.path.isdir(path)


def _fsync_folder(folder: Path) -> None:
    """Make the renames themselves durable; skipped on file systems that do not let a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
