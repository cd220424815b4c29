"""What a benchmark is: an iterator of `EditCase`s read from disk, with the metrics and the protocol that go with them.

A benchmark never drops a case without saying so: what its protocol leaves out is counted, one that cannot be read
raises, and one that cannot be edited becomes a row with its reason.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from regionedit.records import EditCase


class Benchmark(ABC):
    """Cases in an order that is always the same; pictures are opened as the iteration reaches them.

    A case that continues another comes at least as many places after it as the other's whole turn is long: all first
    turns, then all second ones.

    Args:
        folder: where the data are; what is expected there is said by each benchmark.
        limit: the first cases only, 0 for all.
        ids: a file with the ids to keep, a JSON list or one a line; None for all.

    Raises:
        ValueError: the folder lacks something; says what was expected and what is there.
    """

    metrics: ClassVar[tuple[str, ...]]
    # The operations whose region the picture alone decides: metrics marked so are means over these; () for all.
    headline: ClassVar[tuple[str, ...]] = ()
    protocol: ClassVar[dict[str, str]]
    counts: dict[str, int]

    @abstractmethod
    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None): ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[EditCase]: ...


def read_ids(path: str | Path) -> list[str]:
    """The ids of a file: a JSON list, or one a line.

    Raises:
        ValueError: no such file, or nothing in it.
    """
    try:
        text = Path(path).read_text().strip()
    except OSError as error:
        raise ValueError(f"ids: {path} cannot be read: {error.strerror}") from None
    found = [str(i) for i in json.loads(text)] if text.startswith("[") else text.split("\n")
    ids = [i.strip() for i in found if i.strip()]
    if not ids:
        raise ValueError(f"ids: {path} names no case")
    return ids
