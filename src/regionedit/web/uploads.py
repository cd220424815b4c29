"""Uploaded files leave the disk soon after they were read: what is worked on is in memory or the session's folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path

AFTER_USE = 60.0
"""Seconds that a file stays after it was last read: the browser that shows it has long fetched it."""

UNUSED = 900.0
"""Seconds that a file stays which nobody read: its request may wait in the queue."""

EVERY = 10.0


class Uploads:
    """What was uploaded and when it was last read.

    Attributes:
        files: paths; the server adds what comes.
    """

    def __init__(self):
        self.files: set[str] = set()
        self._read: dict[str, float] = {}

    def read(self, path: Path) -> None:
        """Note that a file was read now; it may be one that nobody uploaded."""
        if str(path) in self.files:
            self._read[str(path)] = time.time()

    def sweep(self, now: float) -> None:
        """Delete what is due at `now`, in seconds since the epoch. The same file uploaded again starts anew."""
        for name in list(self.files):
            path, read = Path(name), self._read.get(name)
            try:
                came = path.lstat().st_ctime
            except FileNotFoundError:  # not yet where it will be, or gone with the server's own cleaning
                continue
            due = came + UNUSED if read is None or read < came else read + AFTER_USE
            if now > due:
                path.unlink(missing_ok=True)
                self.files.discard(name)
                self._read.pop(name, None)

    def sweep_for_ever(self) -> None:
        """In a thread that ends with the process."""

        def go_on():
            while True:
                time.sleep(EVERY)
                self.sweep(time.time())

        threading.Thread(target=go_on, daemon=True).start()
