"""Checks of a benchmark's folder: nothing is missing, and no download is unfinished."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

UNFINISHED = ("*.incomplete", "*.part", "*.crdownload", "*.aria2")
SHOWN = 6  # names that a message lists


def require_layout(folder: str | Path, needed: Collection[str], name: str) -> Path:
    """The folder as a path, after checking that it holds everything needed and no unfinished download.

    The ValueError lists what was expected of the data called `name`, and what is there.

    Args:
        needed: names inside the folder; a name that ends in "/" must be a folder.
    """
    folder = Path(folder)
    expected = f"expected {name}: {', '.join(needed)}"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"data: {folder} {what}; {expected}")
    missing = [n for n in needed if not ((folder / n).is_dir() if n.endswith("/") else (folder / n).is_file())]
    if missing:
        inside = [p.parent for p in sorted(folder.glob(f"*/{missing[0].rstrip('/')}"))]
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise ValueError(f"data: {folder} has no {missing[0]}; {expected}; found: {found_in(folder)}{hint}")
    require_finished(folder)
    return folder


def require_finished(folder: Path) -> None:
    """Raises ValueError if a download left an unfinished file."""
    for pattern in UNFINISHED:
        if left := next(folder.rglob(pattern), None):
            raise ValueError(f"data: {left} is a half-finished download; run the download again until it ends")


def found_in(folder: Path) -> str:
    """The content of a folder for a message: the first names and the number of the others."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def require_files(paths: Collection[Path], what: str) -> None:
    """Raises ValueError if files are missing; the message has their number and the first one."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"data: {len(missing)} of {len(paths)} {what} are missing, the first is {missing[0]}; complete the "
            "download, or leave these cases out with ids"
        )
