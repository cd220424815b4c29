"""The uploaded files: which of them a request may name, and when they are deleted.

The page works on copies in memory or in the session's folder. If a request names a file by URL, Gradio downloads it
from the server's network, whatever its size; `Guard` refuses such requests, and huge ones, before Gradio reads them.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

AFTER_USE = 60.0
"""Seconds from the last read of a file to its deletion; by then, the browser has fetched it."""

UNUSED = 900.0
"""Seconds from the upload to the deletion of a file that was never read: its request may be waiting in the queue."""

EVERY = 10.0
"""Seconds between two sweeps."""

MAX_BYTES = 4_000_000
"""Limit of a request that is not an upload; brush strokes and the longest accepted texts need far less."""

URL_STARTS = ("http:", "https:", "ftp:", "//")


class Paths(set[str]):
    """Paths of uploads. A loop over them goes over a copy, because requests add to them, and Gradio and we delete from
    them, each in a thread of its own."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))


class Uploads:
    """The uploaded files and when each was last read.

    Attributes:
        files: the server adds each new upload.
        examples: paths of the pictures that the page shows as examples. Gradio names a file by its content, so an
            upload can have the path of an example; such a file is never deleted.
    """

    def __init__(self):
        self.files = Paths()
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


def uploaded(file: dict) -> tuple[Path, str]:
    """Path and original name of a file that a program has uploaded.

    Raises ValueError: not an uploaded file; programs cannot read other files of the server.
    """
    path = Path(str((file or {}).get("path", ""))) if isinstance(file, dict) else Path()
    served = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    if not path.is_absolute() or not path.resolve().is_relative_to(served) or not path.is_file():
        raise ValueError("file: not an uploaded file; upload it to /gradio_api/upload first, as gradio_client does")
    return path, str(file.get("orig_name") or path.name)


class Guard:
    """ASGI middleware: answers 413 to a request with too many bytes, 400 to one that names a file by URL."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST" or _is_upload(scope):
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_BYTES:
                detail = f"request: more than {MAX_BYTES} bytes; upload files to /gradio_api/upload"
                return await _refuse(413, detail, scope, receive, send)
        if names_url(body):
            detail = "file: a URL instead of an uploaded file; upload it to /gradio_api/upload first"
            return await _refuse(400, detail, scope, receive, send)
        read = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return read.pop() if read else await receive()

        return await self.app(scope, replay, send)


def names_url(body: bytes) -> bool:
    """Whether this JSON names a file by URL; False if it is not JSON."""
    paths = []

    def keep_path(value: dict) -> None:
        paths.append(value.get("path"))

    try:
        json.loads(body, object_hook=keep_path)
    except (ValueError, RecursionError):
        return False  # Gradio refuses invalid JSON itself
    return any(isinstance(path, str) and path.strip().lower().startswith(URL_STARTS) for path in paths)


def _is_upload(scope) -> bool:
    """Whether the request is multipart; Gradio limits its files itself, by `max_file_size`."""
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


async def _refuse(code: int, detail: str, scope, receive, send) -> None:
    from starlette.responses import JSONResponse

    await JSONResponse({"detail": detail}, code)(scope, receive, send)
