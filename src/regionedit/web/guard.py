"""What is refused before Gradio reads it: requests of too many bytes, and addresses in place of uploaded files.

Gradio fetches a file that is named by an address, of any size, from the server's side of the network.
"""

from __future__ import annotations

import json

MAX_BYTES = 4_000_000
"""Of a request that is no upload; brush strokes and the longest accepted texts are far below."""

ADDRESSES = ("http:", "https:", "ftp:", "//")


class Guard:
    """ASGI middleware around the page's server."""

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
                return await _refuse(413, f"request: more than {MAX_BYTES} bytes", scope, receive, send)
        if names_address(body):
            said = "file: an address instead of a file; send the file itself to /gradio_api/upload first"
            return await _refuse(400, said, scope, receive, send)
        read = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return read.pop() if read else await receive()

        return await self.app(scope, replay, send)


def names_address(body: bytes) -> bool:
    """Whether a file in this JSON is named by an address; what is no JSON names none."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # Gradio refuses it itself
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
    """Multipart, whose files Gradio itself bounds by `max_file_size`."""
    return any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])


async def _refuse(code: int, said: str, scope, receive, send) -> None:
    from starlette.responses import JSONResponse

    await JSONResponse({"detail": said}, code)(scope, receive, send)
