"""Deletes uploaded files soon after they were read; the page works on copies in memory or the session's folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path

AFTER_USE = 60.0
"""Seconds from the last read of a file to its deletion; by then, the browser has fetched it."""

UNUSED = 900.0
"""Seconds from the upload to the deletion of a file that was never read: its request may be waiting in the queue."""

EVERY = 10.0


class Uploads:
    """The uploaded files and when each was last read.

    Attributes:
        files: paths; the server adds each new upload.
        examples: paths of the pictures that the page shows as examples. Gradio names a file by its content, so an
            upload can have the path of an example; such a file is never deleted.
    """

    def __init__(self):
        self.files: set[str] = set()
        self.examples: set[str] = set()
        self._read: dict[str, float] = {}

    def read(self, path: Path) -> None:
        """Record that a file was read now; files that are not uploads are ignored."""
        if str(path) in self.files:
            self._read[str(path)] = time.time()

    def sweep(self, now: float) -> None:
        """Delete the files that are due at `now`, in seconds since the epoch. A repeated upload restarts the time."""
        for name in self.files - self.examples:
            path, read = Path(name), self._read.get(name)
            try:
                uploaded = path.lstat().st_ctime
            except FileNotFoundError:  # not moved to its place yet, or already deleted by Gradio
                continue
            due = uploaded + UNUSED if read is None or read < uploaded else read + AFTER_USE
            if now > due:
                path.unlink(missing_ok=True)
                self.files.discard(name)
                self._read.pop(name, None)

    def sweep_for_ever(self) -> None:
        """Call `sweep` regularly in a thread that ends with the process."""

        def loop():
            while True:
                time.sleep(EVERY)
                self.sweep(time.time())

        threading.Thread(target=loop, daemon=True).start()
