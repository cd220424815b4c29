"""The endpoint describer against a server in this process that answers, hangs, is busy, or sends invalid replies."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from regionedit.config import EndpointConfig
from regionedit.describe import endpoint, require_describer
from regionedit.describe.chat import Chat
from regionedit.describe.endpoint import ChatEndpoint

CAPTIONS = json.dumps({"source_caption": "a wall", "target_caption": "a door"})


def completion(text):
    return web.json_response({"choices": [{"message": {"role": "assistant", "content": text}}]})


@contextmanager
def serving(handler):
    """Run a server whose chat completions are answered by `handler`; yields its address."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    address = []

    async def start():
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/v1/chat/completions", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        started.set()
        return runner

    def run():
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.05)


def test_both_captions_from_one_call_with_the_picture(monkeypatch, tmp_path):
    requests = []

    async def handler(request):
        requests.append((await request.json(), request.headers.get("Authorization")))
        return completion(CAPTIONS)

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(handler) as address:
        config = EndpointConfig(
            endpoint=address, endpoint_model="some-vlm", api_key_variable="MY_KEY", picture_size=20,
            cache=str(tmp_path),
        )  # fmt: skip
        describer = require_describer("endpoint").load(config)
        (captions,) = describer.describe([picture], [("make it a door", "remove the lamp")])
    (body, key), = requests  # fmt: skip
    assert (captions.source, captions.target) == ("a wall", "a door") and key == "Bearer secret"
    assert body["model"] == "some-vlm" and body["temperature"] == 0 and body["max_tokens"] == config.max_tokens
    shown, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "Instruction: make it a door; remove the lamp"}
    head, data = shown["image_url"]["url"].split(",")
    assert head == "data:image/png;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (20, 15)
    assert "secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_prose_is_retried_with_sampling(tmp_path):
    bodies = []

    async def handler(request):
        bodies.append(await request.json())
        return completion("Here you are!" if len(bodies) == 1 else CAPTIONS)

    with serving(handler) as address:
        config = EndpointConfig(endpoint=address, endpoint_model="m", cache=None)
        require_describer("endpoint").load(config).describe([Image.new("RGB", (8, 8))], [("x",)])
    assert [body["temperature"] > 0 for body in bodies] == [False, True] and "seed" in bodies[1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_retried_until_it_answers(status):
    tries = []

    async def handler(request):
        tries.append(1)
        return web.Response(status=status) if len(tries) < 3 else completion("ok")

    with serving(handler) as address:
        assert ChatEndpoint(address, "m").answer([Chat("s", "u")]) == ["ok"]
    assert len(tries) == 3


def test_a_server_that_stays_busy_is_given_up():
    tries = []

    async def handler(request):
        tries.append(1)
        return web.json_response({"error": "over\nloaded"}, status=503, headers={"Retry-After": "1000"})

    with serving(handler) as address:
        (answer,) = ChatEndpoint(address, "m", attempts=3).answer([Chat("s", "u")])
    assert isinstance(answer, ValueError) and len(tries) == 3
    assert "given up after 3 attempts: status 503" in str(answer) and "\n" not in str(answer)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_permanent_errors_are_reported_at_once(status):
    tries = []

    async def handler(request):
        tries.append(1)
        return web.json_response({"error": {"message": "no such model"}}, status=status)

    with serving(handler) as address:
        (answer,) = ChatEndpoint(address, "m").answer([Chat("s", "u")])
    assert f"status {status}" in str(answer) and "no such model" in str(answer) and len(tries) == 1


NO_COMPLETIONS = (
    b"", b"<html>", b"{}", b"\xff\xfe", b"{" * 3_000_000, b"[" * 900_000, b'{"choices": []}',
    b'{"choices": [{"message": {}}]}', b'{"choices": [{"message": {"content": [1]}}]}',
)  # fmt: skip


@pytest.mark.parametrize("reply", NO_COMPLETIONS, ids=len)
def test_a_reply_that_is_no_completion_is_an_empty_answer(reply):
    async def handler(request):
        return web.Response(body=reply)

    with serving(handler) as address:
        assert ChatEndpoint(address, "m").answer([Chat("s", "u")]) == [""]


def test_a_server_that_hangs_or_is_not_there_is_given_up():
    async def handler(request):
        await asyncio.sleep(30)

    with serving(handler) as address:
        (answer,) = ChatEndpoint(address, "m", timeout=0.2, attempts=2).answer([Chat("s", "u")])
    assert "no answer within 0.2 s" in str(answer)
    (answer,) = ChatEndpoint(address, "m", attempts=2).answer([Chat("s", "u")])
    assert "given up after 2 attempts: Client" in str(answer)


def test_concurrency_is_limited_and_one_failure_stops_no_other_request():
    waiting, most = [0], [0]

    async def handler(request):
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        await asyncio.sleep(0.02)
        waiting[0] -= 1
        text = (await request.json())["messages"][1]["content"]
        return web.Response(status=400) if text == "7" else completion(text)

    with serving(handler) as address:
        answers = ChatEndpoint(address, "m", concurrency=3).answer([Chat("s", str(n)) for n in range(12)])
    assert isinstance(answers.pop(7), ValueError) and answers == [str(n) for n in range(12) if n != 7]
    assert most[0] == 3


def test_it_can_be_called_from_within_an_event_loop():
    async def handler(request):
        return completion("ok")

    async def caller(address):
        return ChatEndpoint(address, "m").answer([Chat("s", "u")])

    with serving(handler) as address:
        assert asyncio.run(caller(address)) == ["ok"]
