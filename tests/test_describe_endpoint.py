"""The endpoint describer: what it asks, and what it makes of completions and errors."""

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
            endpoint=server.url + "/", endpoint_model="some-vlm", api_key_variable="MY_KEY", picture_size=20,
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


def answers(address: str, count: int = 1, **changes) -> list[str | ValueError]:
    """What the endpoint answers to questions that are their own numbers."""
    config = EndpointConfig(endpoint=address, endpoint_model="m", **changes)
    return ChatEndpoint(config).answer([Chat("s", str(number)) for number in range(count)])


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, '"}}'), (401, "set describe.api_key_variable"), (404, "describe.endpoint or describe.endpoint_model")],
)
def test_permanent_errors_are_reported_at_once(status, advice):
    error = {"error": {"message": "no such model"}}
    with serving(lambda body, before: web.json_response(error, status=status)) as server:
        (answer,) = answers(server.url)
    assert f"status {status}" in str(answer) and "no such model" in str(answer) and len(server.bodies) == 1
    assert str(answer).startswith("describe.endpoint: ") and str(answer).endswith(advice)


@pytest.mark.parametrize("reply", [b"{}", b"{" * 3_000_000, b'{"choices": [{"message": {"content": [1]}}]}'], ids=len)
def test_a_reply_that_is_no_completion_is_an_empty_answer(reply):
    with serving(lambda body, before: web.Response(body=reply)) as server:
        assert answers(server.url) == [""]


def test_concurrency_is_limited_and_one_failure_stops_no_other_request():
    """Called from within an event loop, as the page does."""

    async def echo(body, before):
        await asyncio.sleep(0.02)
        text = body["messages"][1]["content"]
        return web.Response(status=400) if text == "7" else text

    async def caller():
        return answers(server.url, 12, concurrency=3)

    with serving(echo) as server:
        got = asyncio.run(caller())
    assert isinstance(got.pop(7), ValueError) and got == [str(n) for n in range(12) if n != 7]
    assert server.most == 3
