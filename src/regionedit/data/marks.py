"""Marks: which samples of a shard are left out, and why. Nothing is deleted; without its marks a shard is complete.

`{shard}.marks.jsonl` (by the rules of data_prep/filter.py) and `{shard}.subset.jsonl` (by a random choice) have one
format: a header line `{"schema": 1, "rules": {...}, "hash": "..."}`, then one line `{"key": ..., "reasons": [...]}` for
each sample that is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regionedit.files import write_atomic

SCHEMA = 1
MARKS, SUBSET = SIDECARS = "{}.marks.jsonl", "{}.subset.jsonl"


def mark_files(folder: Path, shard: str) -> list[Path]:
    """The existing sidecars with marks of a shard."""
    return [path for name in SIDECARS if (path := folder / name.format(shard)).is_file()]


def read_header(path: Path) -> dict[str, Any]:
    """The header line of a sidecar with marks, or {} if the file does not exist.

    Raises:
        ValueError: the first line is not a header of this schema.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
    except FileNotFoundError:
        return {}
    try:
        header = json.loads(first)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise ValueError(
            f'{path}: the first line must be a header {{"schema": {SCHEMA}, ...}}; delete the file and mark again'
        )
    return header


def read_marks(path: Path) -> dict[str, tuple[str, ...]]:
    """Reasons by key, in the file's order; {} if the file does not exist.

    Raises:
        ValueError: no header of this schema, or a line that is not a mark.
    """
    if not read_header(path):
        return {}
    marks: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as file:
        file.readline()
        for number, line in enumerate(file, 2):
            try:
                entry = json.loads(line)
                key, reasons = entry["key"], tuple(entry["reasons"])
                if not isinstance(key, str) or not all(isinstance(reason, str) for reason in reasons):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}, line {number}: not a mark; delete the file and mark again") from None
            marks[key] = reasons
    return marks


def write_marks(path: Path, rules: Mapping[str, Any], digest: str, marks: Mapping[str, Sequence[str]]) -> None:
    """Write a sidecar completely or not at all.

    Args:
        rules: the rules that were applied, for people to read.
        digest: hash of all that determines the marks; the same hash means the same marks.
        marks: reasons by key.

    Raises:
        OSError: no room, no permission; nothing is left behind.
    """
    lines = [{"schema": SCHEMA, "rules": dict(rules), "hash": digest}]
    lines += [{"key": key, "reasons": list(reasons)} for key, reasons in marks.items()]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
