"""What models said, on disk: one small JSON file for each answer, shared by all processes that name the folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from regionedit.files import write_atomic

FOLDERS = 256


class AnswerCache:
    """Answers by what was asked and who was asked.

    A file appears whole or not at all, and one that cannot be read counts as not there. The oldest make room for new
    ones; files are spread evenly over 256 folders, and each keeps its share of the bound.

    Args:
        folder: made when it is first written to.
        entries: how many answers are kept at most, rounded up to a multiple of 256.
    """

    def __init__(self, folder: str | Path, entries: int):
        self.folder = Path(folder)
        self.each = -(-entries // FOLDERS)

    def get(self, asked: object) -> dict[str, str] | None:
        """The answer to what was asked (plain values), or None."""
        try:
            stored = json.loads(self._path(asked).read_bytes())
            known = stored["asked"] == json.loads(json.dumps(asked)) and stored["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known if isinstance(known, dict) and all(isinstance(v, str) for v in known.values()) else None

    def put(self, asked: object, answer: dict[str, str]) -> None:
        """Keep an answer. Raises OSError: no room, no permission; the message names the folder."""
        path = self._path(asked)
        write_atomic(path, json.dumps({"asked": asked, "answer": answer}, ensure_ascii=False, indent=1).encode())
        files = []
        for file in path.parent.iterdir():
            try:
                files.append((file.stat().st_mtime_ns, file))
            except FileNotFoundError:  # another process made room
                continue
        for _, file in sorted(files)[: -self.each]:  # half-written ones of killed processes grow old as well
            file.unlink(missing_ok=True)

    def _path(self, asked: object) -> Path:
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
