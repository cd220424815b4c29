"""The endpoint describer: what it asks, and what it makes of completions and errors."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from regionedit.config import EndpointConfig
from regionedit.describe import endpoint, require_describer
from regionedit.describe.chat import Chat
from regionedit.describe.endpoint import ChatEndpoint
from tests.chat_servers import serving

CAPTIONS = json.dumps({"source_caption": "a wall", "target_caption": "a door"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "BACKOFF", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.05)


def test_both_captions_from_one_call_with_the_picture(monkeypatch, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    monkeypatch.setenv("MY_KEY", "secret")
    with serving(lambda body, before: CAPTIONS) as server:
        config = EndpointConfig(
            endpoint=server.url, endpoint_model="some-vlm", api_key_variable="MY_KEY", picture_size=20,
            cache=str(tmp_path),
        )  # fmt: skip
        describer = require_describer("endpoint").load(config)
        (answer,) = describer.describe([picture], [("make it a door", "remove the lamp")])
    (body,), (headers,) = server.bodies, server.headers
    assert (answer.source, answer.target) == ("a wall", "a door") and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "some-vlm" and body["temperature"] == 0 and body["max_tokens"] == config.max_tokens
    shown, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "Instruction: make it a door; remove the lamp"}
    head, data = shown["image_url"]["url"].split(",")
    assert head == "data:image/png;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (20, 15)
    assert "secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_prose_is_retried_with_sampling():
    with serving(lambda body, before: CAPTIONS if before else "Here you are!") as server:
        config = EndpointConfig(endpoint=server.url, endpoint_model="m", cache=None)
        require_describer("endpoint").load(config).describe([Image.new("RGB", (8, 8))], [("x",)])
    assert [body["temperature"] > 0 for body in server.bodies] == [False, True] and "seed" in server.bodies[1]


def test_a_busy_server_is_asked_until_it_answers():
    with serving(lambda body, before: "ok" if before == 2 else web.Response(status=503)) as server:
        assert ChatEndpoint(server.url, "m").answer([Chat("s", "u")]) == ["ok"]
    assert len(server.bodies) == 3


def test_a_server_that_stays_busy_is_given_up():
    reply = {"data": {"error": "over\nloaded"}, "status": 503, "headers": {"Retry-After": "1000"}}
    with serving(lambda body, before: web.json_response(**reply)) as server:
        (answer,) = ChatEndpoint(server.url, "m", attempts=3).answer([Chat("s", "u")])
    assert isinstance(answer, ValueError) and len(server.bodies) == 3
    assert "given up after 3 attempts: status 503" in str(answer) and "\n" not in str(answer)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, '"}}'), (401, "set describe.api_key_variable"), (404, "describe.endpoint or describe.endpoint_model")],
)
def test_permanent_errors_are_reported_at_once(status, advice):
    error = {"error": {"message": "no such model"}}
    with serving(lambda body, before: web.json_response(error, status=status)) as server:
        (answer,) = ChatEndpoint(server.url, "m").answer([Chat("s", "u")])
    assert f"status {status}" in str(answer) and "no such model" in str(answer) and len(server.bodies) == 1
    assert str(answer).startswith("describe.endpoint: ") and str(answer).endswith(advice)


NO_COMPLETIONS = (
    b"", b"<html>", b"{}", b"\xff\xfe", b"{" * 3_000_000, b"[" * 900_000, b'{"choices": []}',
    b'{"choices": [{"message": {}}]}', b'{"choices": [{"message": {"content": [1]}}]}',
)  # fmt: skip


@pytest.mark.parametrize("reply", NO_COMPLETIONS, ids=len)
def test_a_reply_that_is_no_completion_is_an_empty_answer(reply):
    with serving(lambda body, before: web.Response(body=reply)) as server:
        assert ChatEndpoint(server.url, "m").answer([Chat("s", "u")]) == [""]


def test_a_server_that_hangs_or_is_not_there_is_given_up():
    async def hang(body, before):
        await asyncio.sleep(30)

    with serving(hang) as server:
        (answer,) = ChatEndpoint(server.url, "m", timeout=0.2, attempts=2).answer([Chat("s", "u")])
    assert "no answer within 0.2 s" in str(answer)
    (answer,) = ChatEndpoint(server.url, "m", attempts=2).answer([Chat("s", "u")])
    assert "given up after 2 attempts: Client" in str(answer)


def test_concurrency_is_limited_and_one_failure_stops_no_other_request():
    async def echo(body, before):
        await asyncio.sleep(0.02)
        text = body["messages"][1]["content"]
        return web.Response(status=400) if text == "7" else text

    with serving(echo) as server:
        answer = ChatEndpoint(server.url, "m", concurrency=3).answer([Chat("s", str(n)) for n in range(12)])
    assert isinstance(answer.pop(7), ValueError) and answer == [str(n) for n in range(12) if n != 7]
    assert server.most == 3


def test_it_can_be_called_from_within_an_event_loop():
    async def caller(address):
        return ChatEndpoint(address, "m").answer([Chat("s", "u")])

    with serving(lambda body, before: "ok") as server:
        assert asyncio.run(caller(server.url)) == ["ok"]
