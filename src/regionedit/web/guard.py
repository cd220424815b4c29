"""Refuses requests before Gradio reads them: too many bytes, or a URL in place of an uploaded file.

If a request names a file by URL, Gradio downloads it from the server's network, whatever its size.
"""

from __future__ import annotations

import json

MAX_BYTES = 4_000_000
"""Limit of a request that is not an upload; brush strokes and the longest accepted texts need far less."""

ADDRESSES = ("http:", "https:", "ftp:", "//")


class Guard:
    """ASGI middleware that answers such requests with 413 or 400."""

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
        if names_address(body):
            detail = "file: a URL instead of an uploaded file; upload it to /gradio_api/upload first"
            return await _refuse(400, detail, scope, receive, send)
        read = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return read.pop() if read else await receive()

        return await self.app(scope, replay, send)


def names_address(body: bytes) -> bool:
    """Whether this JSON names a file by URL; False if it is not JSON."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # Gradio refuses invalid JSON itself
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(ADDRESSES):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _is_upload(scope) -> bool:
    """Whether the request is multipart; Gradio limits its files itself, by `max_file_size`."""
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


async def _refuse(code: int, detail: str, scope, receive, send) -> None:
    from starlette.responses import JSONResponse

    await JSONResponse({"detail": detail}, code)(scope, receive, send)
