"""Writes files and finds out whether they exist.

Writes are atomic: a reader never finds half a file, even after a crash or on a full disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LONGEST_NAME = 255  # bytes of a file's name


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write one file whole or not at all: temporary file, fsync, rename.

    Raises OSError: no room, no permission; the message names the path and nothing is left behind.
    """
    path = Path(path)
    write_together(path.parent, {path.name: data})


def write_together(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write several files of one folder, all or none: every byte is on disk before the first rename.

    The files appear in the mapping's order, so if the last one exists, all of them do.

    Raises OSError: no room, no permission; the message names the folder and nothing is left behind.
    """
    folder = Path(folder)
    existed = folder.is_dir()
    temporaries: list[tuple[Path, Path]] = []
    new: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            temporary = folder / f".{name}.{os.getpid()}.part"
            temporaries.append((temporary, folder / name))
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
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
