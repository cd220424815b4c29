"""An instructions sidecar as it lies on disk: its header, its instructions, and the keys that were dropped with why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regionedit.data.index import SCHEMA


@dataclass
class Instructions:
    """Of one shard.

    Args:
        header: who wrote them, with what.
        entries: {instruction, target_caption, ...} by key.
        dropped: reason by key.
    """

    header: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def captions(self) -> dict[str, str]:
        """Captions of the sources that were written anew, by key; they stand in for those of the tar."""
        return {key: entry["source_caption"] for key, entry in self.entries.items() if entry.get("source_caption")}


def read_instructions(folder: Path, shard: str) -> Instructions:
    """The instructions of a shard; none where none are written yet.

    Raises:
        ValueError: no header of the schema, or a line that is not JSON with a key; names file and line.
    """
    path = folder / f"{shard}.instructions.jsonl"
    found = Instructions()
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if number == 1:
                if entry["schema"] != SCHEMA:
                    raise ValueError
                found.header = entry
            elif "dropped" in entry:
                found.dropped[entry["key"]] = str(entry["dropped"])
            else:
                found.entries[entry["key"]] = entry
        except (ValueError, KeyError, TypeError):
            what = f'a header {{"schema": {SCHEMA}, ...}}' if number == 1 else "JSON with a key"
            raise ValueError(f"{path}, line {number}: not {what}; write the sidecar again") from None
    return found
