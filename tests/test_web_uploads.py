"""Uploads leave the disk after use; what Gradio must not read never reaches it."""

from __future__ import annotations

import asyncio
import json
import os
import time

import pytest

from regionedit.web.uploads import AFTER_USE, MAX_BYTES, UNUSED, Guard, Uploads, names_url


@pytest.fixture
def upload(tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"x")
    uploads = Uploads()
    uploads.files.add(str(file))
    return uploads, file


def test_a_file_that_was_read_goes_soon(upload):
    uploads, file = upload
    uploads.read(file)
    uploads.sweep(time.time() + AFTER_USE - 5)
    assert file.exists()
    uploads.sweep(time.time() + AFTER_USE + 5)
    assert not file.exists() and not uploads.files


def test_a_file_that_waits_for_its_turn_stays_longer_and_not_for_ever(upload):
    uploads, file = upload
    uploads.sweep(time.time() + AFTER_USE + 5)
    assert file.exists()
    uploads.sweep(time.time() + UNUSED + 5)
    assert not file.exists()


def test_the_same_file_uploaded_again_waits_again(upload):
    uploads, file = upload
    uploads.read(file)
    time.sleep(0.02)
    again = file.with_suffix(".part")
    again.write_bytes(b"x")
    os.replace(again, file)
    uploads.sweep(time.time() + AFTER_USE + 5)
    assert file.exists()


def test_only_uploads_are_deleted(upload, tmp_path):
    uploads, _ = upload
    other = tmp_path / "example.png"
    other.write_bytes(b"x")
    uploads.read(other)
    uploads.sweep(time.time() + 2 * UNUSED)
    assert other.exists()


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ({"data": [{"path": "http://example.org/a.png"}, "x"]}, True),
        ({"data": [[{"image": {"path": " HTTPS://example.org/a.png"}}]]}, True),
        ({"data": [{"path": "//example.org/a.png"}]}, True),
        (
            {"data": [{"path": "/tmp/a.png", "url": "http://127.0.0.1/a.png"}, "see http://example.org"]},
            False,
        ),
        ({"path": {"path": 3}}, False),
        ("http://example.org", False),
    ],
)
def test_addresses_are_seen_in_files_and_not_in_texts(value, refused):
    assert names_url(json.dumps(value).encode()) is refused


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b"{"])
def test_what_is_no_json_is_left_to_the_server(body):
    assert not names_url(body)


def sent(body: bytes, content_type: bytes = b"application/json", pieces: int = 3):
    """(status that the guard answered, body that reached the server)."""
    reached, answered = [], []
    size = max(1, -(-len(body) // pieces))
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": p, "more_body": k < len(parts) - 1} for k, p in enumerate(parts)]

    async def server(scope, receive, send):
        got, more = b"", True
        while more:
            message = await receive()
            got, more = got + message["body"], message["more_body"]
        reached.append(got)

    async def receive():
        return messages.pop(0)

    async def send(message):
        answered.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}
    asyncio.run(Guard(server)(scope, receive, send))
    return answered[0]["status"] if answered else None, reached[0] if reached else None


def test_a_request_reaches_the_server_whole():
    body = json.dumps({"data": ["make it red", 3]}).encode()
    assert sent(body) == (None, body)


def test_too_many_bytes_and_addresses_do_not():
    assert sent(b" " * (MAX_BYTES + 1)) == (413, None)
    assert sent(b'{"data": [{"path": "http://example.org/a.png"}]}') == (400, None)


def test_uploads_are_left_to_the_servers_own_limit():
    body = b" " * (MAX_BYTES + 1)
    assert sent(body, b"multipart/form-data; boundary=x") == (None, body)
