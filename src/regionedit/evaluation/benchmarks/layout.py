"""The folder of a benchmark: is everything there, and was the download finished?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

UNFINISHED = ("*.incomplete", "*.part", "*.crdownload", "*.aria2")
SHOWN = 6  # names that a message lists


def require_layout(folder: str | Path, needed: Collection[str], name: str) -> Path:
    """The folder, if it holds all that is needed and no half-finished download.

    Args:
        needed: names inside the folder; one that ends in "/" has to be a folder.
        name: of the data, for the message.

    Raises:
        ValueError: something is missing; says what was expected and what is there.
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
    """Raises ValueError: a download left an unfinished file behind."""
    for pattern in UNFINISHED:
        if left := next(folder.rglob(pattern), None):
            raise ValueError(f"data: {left} is a half-finished download; run the download again until it ends")


def found_in(folder: Path) -> str:
    """What a folder holds, for a message: the first names and how many more."""
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def require_files(paths: Collection[Path], what: str) -> None:
    """Raises ValueError: some of these files are not there; says how many and names the first."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"data: {len(missing)} of {len(paths)} {what} are missing, the first is {missing[0]}; complete the "
            "download, or leave these cases out with ids"
        )
