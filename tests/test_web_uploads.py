"""Uploads leave the disk after use; what Gradio must not read never reaches it."""

import asyncio
import json
import os
import time

import pytest

from regionedit.web.uploads import AFTER_USE, MAX_BYTES, UNUSED, Guard, Paths, Uploads, names_url


@pytest.fixture
def upload(tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"x")
    uploads = Uploads()
    uploads.files.add(str(file))
    return uploads, file


def test_a_file_goes_soon_after_it_was_read_and_a_waiting_one_later(upload):
    uploads, file = upload
    uploads.sweep(time.time() + AFTER_USE + 5)
    assert file.exists(), "it waits for its turn"
    uploads.read(file)
    uploads.sweep(time.time() + AFTER_USE - 5)
    assert file.exists()
    uploads.sweep(time.time() + AFTER_USE + 5)
    assert not file.exists() and not uploads.files


def test_a_file_that_is_never_read_does_not_stay_for_ever_and_others_are_not_deleted(upload, tmp_path):
    uploads, file = upload
    other = tmp_path / "example.png"
    other.write_bytes(b"x")
    uploads.read(other)
    uploads.sweep(time.time() + UNUSED + 5)
    assert not file.exists() and other.exists()


def test_files_may_come_and_go_while_gradio_goes_over_them(upload):
    uploads, file = upload
    for name in uploads.files:
        uploads.files |= {"new"}
        uploads.files.discard(name)
    assert uploads.files == {"new"} and isinstance(uploads.files, Paths)


def test_the_same_file_uploaded_again_waits_again(upload):
    uploads, file = upload
    uploads.read(file)
    time.sleep(0.02)
    again = file.with_suffix(".part")
    again.write_bytes(b"x")
    os.replace(again, file)
    uploads.sweep(time.time() + AFTER_USE + 5)
    assert file.exists()


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ({"data": [{"path": "http://example.org/a.png"}, "x"]}, True),
        ({"data": [[{"image": {"path": " HTTPS://example.org/a.png"}}]]}, True),
        ({"data": [{"path": "//example.org/a.png"}]}, True),
        ({"data": [{"path": "/tmp/a.png", "url": "http://127.0.0.1/a.png"}, "see http://example.org"]}, False),
        ({"path": {"path": 3}}, False),
        ("http://example.org", False),
        (b"", False),  # what is no JSON is left to the server
        (b"\xff", False),
        (b"[" * 100_000, False),
        (b"{", False),
    ],
)
def test_addresses_are_seen_in_files_and_not_in_texts(value, refused):
    assert names_url(value if isinstance(value, bytes) else json.dumps(value).encode()) is refused


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


def test_only_small_requests_without_addresses_and_uploads_reach_the_server():
    body, long = json.dumps({"data": ["make it red", 3]}).encode(), b" " * (MAX_BYTES + 1)
    assert sent(body) == (None, body)
    assert sent(long) == (413, None)
    assert sent(b'{"data": [{"path": "http://example.org/a.png"}]}') == (400, None)
    assert sent(long, b"multipart/form-data; boundary=x") == (None, long), "the server limits these itself"
