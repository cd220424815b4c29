"""Read an instructions sidecar from disk: its instructions, and the dropped keys with their reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regionedit.data.index import SCHEMA


@dataclass
class Instructions:
    """The instructions of one shard.

    Args:
        entries: key -> {instruction, target_caption, ...}.
        dropped: key -> reason.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def captions(self) -> dict[str, str]:
        """key -> new source caption, where one was written; it replaces the caption in the tar."""
        return {key: entry["source_caption"] for key, entry in self.entries.items() if entry.get("source_caption")}


def read_instructions(folder: Path, shard: str) -> Instructions:
    """Read the instructions of a shard; empty if none are written yet.

    Raises:
        ValueError: no valid header, or a line that is not JSON with a key; names file and line.
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
            elif "dropped" in entry:
                found.dropped[entry["key"]] = str(entry["dropped"])
            else:
                found.entries[entry["key"]] = entry
        except (ValueError, KeyError, TypeError):
            what = f'a header {{"schema": {SCHEMA}, ...}}' if number == 1 else "JSON with a key"
            raise ValueError(f"{path}, line {number}: not {what}; write the sidecar again") from None
    return found
