"""Models' answers on disk: one small JSON file for each answer, shared by all processes that use the folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from regionedit.files import write_atomic

FOLDERS = 256


class AnswerCache:
    """Stores each answer under its question; the question also names the model.

    Files are written atomically, and a file that cannot be read counts as missing. The oldest answers are deleted to
    make room for new ones. Files are spread evenly over 256 folders, each with an equal share of the limit.

    Args:
        folder: created by the first write; None or empty: nothing is stored.
        entries: maximum number of answers, rounded up to a multiple of 256.
    """

    def __init__(self, folder: str | Path | None = None, entries: int = FOLDERS):
        self.folder = Path(folder) if folder else None
        self.each = -(-entries // FOLDERS)

    def get(self, question: object) -> dict[str, str] | None:
        """The answer to a question (plain values), or None."""
        if self.folder is None:
            return None
        try:
            stored = json.loads(self._path(question).read_bytes())
            cached = stored["asked"] == json.loads(json.dumps(question)) and stored["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cached if isinstance(cached, dict) and all(isinstance(v, str) for v in cached.values()) else None

    def put(self, question: object, answer: dict[str, str]) -> None:
        """Store an answer. Raises OSError: no room, no permission; the message names the folder."""
        if self.folder is None:
            return
        path = self._path(question)
        write_atomic(path, json.dumps({"asked": question, "answer": answer}, ensure_ascii=False, indent=1).encode())
        files = []
        for file in path.parent.iterdir():
            try:
                files.append((file.stat().st_mtime_ns, file))
            except FileNotFoundError:  # another process deleted it
                continue
        for _, file in sorted(files)[: -self.each]:  # half-written files of killed processes get old and go as well
            file.unlink(missing_ok=True)

    def _path(self, question: object) -> Path:
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
