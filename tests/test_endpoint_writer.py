"""The endpoint writer against a server on this machine that hangs, refuses, fails, sends nonsense or answers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from aiohttp import web
from endpoint_writer import EndpointWriter
from prompt_file import load_prompt
from writer import CUT_OFF, Ask, WriterError

from tests.instruction_fixtures import config

GOOD = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}


class Server:
    """An endpoint in a thread; `respond(body, number of equal requests before)` returns a response or a coroutine."""

    def __init__(self, respond):
        self.respond, self.bodies, self.headers = respond, [], []
        self.now = self.most = 0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _run(self, ready):
        asyncio.set_event_loop(self._loop)
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _answer(self, request):
        body = await request.json()
        before = sum(b["messages"] == body["messages"] for b in self.bodies)
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            made = self.respond(body, before)
            made = await made if asyncio.iscoroutine(made) else made
        finally:
            self.now -= 1
        return web.json_response(made) if isinstance(made, dict) else made

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def serve(tmp_path):
    """A function that runs a writer against an endpoint; returns the writer's answers and the server."""
    open_ones = []

    def serve(respond, asks: int = 1, **changes):
        server = Server(respond)
        made = config(tmp_path, writer="openai", model="m")
        endpoint = replace(made.endpoint, url=server.url, **changes)
        writer = EndpointWriter.load(replace(made, endpoint=endpoint))
        open_ones.extend((writer, server))
        return writer.write([an_ask(number) for number in range(asks)]), server

    yield serve
    for one in open_ones:
        one.close()


def an_ask(number: int) -> Ask:
    caption = f'a "dog" number {number}'
    messages = load_prompt("instructions").messages(operation="add", wording="plain", caption=caption)
    return Ask(f"k{number}", caption, "add", None, messages, seed=number, attempt=0)


def test_every_request_gets_its_own_answer_and_concurrency_is_limited(serve):
    async def echo(body, before):
        await asyncio.sleep(0.002)
        return {"choices": [{"message": {"content": body["messages"][-1]["content"]}}]}

    answers, server = serve(echo, asks=40, concurrency=7)
    assert [json.loads(answer.text)["caption"] for answer in answers] == [f'a "dog" number {n}' for n in range(40)]
    assert server.most == 7
    body = next(b for b in server.bodies if b["seed"] == 3)
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m", 0.7, 0.95, 256)
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"operation", "instruction", "target_caption"}
    assert "Authorization" not in server.headers[0]


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    _, server = serve(lambda body, before: GOOD, response_format="none")
    assert server.headers[0]["Authorization"] == "Bearer secret" and "response_format" not in server.bodies[0]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_endpoint_errors_are_retried(serve, status):
    answers, server = serve(lambda body, before: GOOD if before else web.Response(status=status), asks=3)
    assert [answer.text for answer in answers] == ["yes"] * 3 and len(server.bodies) == 6


def test_retries_are_limited(serve):
    answers, server = serve(lambda body, before: web.Response(status=500), asks=2)
    assert [answer.failure for answer in answers] == ["endpoint: status 500"] * 2 and len(server.bodies) == 6


def test_a_hanging_endpoint_times_out(serve):
    async def hang(body, before):
        await asyncio.sleep(30 if body["seed"] == 1 else 0)
        return GOOD

    started = time.monotonic()
    answers, _ = serve(hang, asks=3, timeout=1.0, retries=1)
    assert time.monotonic() - started < 20
    assert [a.failure or a.text for a in answers] == ["yes", "endpoint: no answer within 1 s", "yes"]


@pytest.mark.parametrize("told", ["0.3", "date"])
def test_retry_after_is_read_by_the_servers_clock(serve, told):
    dates = {"Date": "Wed, 01 Jan 2020 00:00:00 GMT", "Retry-After": "Wed, 01 Jan 2020 00:00:09 GMT"}
    headers = dates if told == "date" else {"Retry-After": told}
    times = []

    def busy(body, before):
        times.append(time.monotonic())
        return web.Response(status=429, headers=headers) if len(times) == 1 else GOOD

    answers, _ = serve(busy, longest_wait=0.4)
    assert answers[0].text == "yes" and 0.25 < times[1] - times[0]


def test_a_lost_connection_is_retried(serve):
    def drop(body, before):
        if before:
            return GOOD
        raise asyncio.CancelledError  # closes the connection without a response

    answers, server = serve(drop)
    assert answers[0].text == "yes" and len(server.bodies) == 2


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        ({"choices": []}, "endpoint: not a chat completion"),
        ({"choices": [{"message": {"content": None}}]}, "answer: none"),
        ({"choices": [{"message": {"content": "{"}, "finish_reason": "length"}]}, CUT_OFF),
    ],
)
def test_an_unusable_completion_has_a_reason(serve, response, failure):
    assert serve(lambda body, before: response)[0][0].failure == failure


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("<html>busy</html>", "endpoint: not JSON"),
        ('{"choices": [', "endpoint: not JSON"),
        ("[" * 500_000, "endpoint: not JSON"),
        ("[" * 2_000_000, "answer: too long"),
    ],
    ids=["html", "half", "deep", "long"],
)
def test_a_body_that_is_no_completion_has_a_reason(serve, text, failure):
    assert serve(lambda body, before: web.Response(text=text))[0][0].failure == failure


def test_one_refused_request_is_dropped_and_the_others_succeed(serve):
    answers, _ = serve(lambda body, before: web.Response(status=400) if body["seed"] == 2 else GOOD, asks=12)
    assert Counter(a.failure for a in answers) == {"": 11, "refused by the endpoint (status 400)": 1}


@pytest.mark.parametrize(("status", "way_out"), [(401, "OPENAI_API_KEY"), (404, "endpoint.url or model")])
def test_a_permanent_endpoint_error_stops_the_run(serve, status, way_out):
    with pytest.raises(WriterError, match=rf"{status} .*{way_out}"):
        serve(lambda body, before: web.Response(status=status), asks=5)


def test_an_endpoint_that_answers_no_request_stops_the_run(serve, tmp_path):
    with pytest.raises(WriterError, match=r"none of 8 requests succeeded \(endpoint: status 503\)"):
        serve(lambda body, before: web.Response(status=503), asks=8)
    # An empty answer does not count as a failed request.
    answers, _ = serve(lambda body, before: {"choices": [{"message": {"content": None}}]}, asks=8)
    assert {answer.failure for answer in answers} == {"answer: none"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = config(tmp_path, writer="openai")
    endpoint = replace(made.endpoint, url=f"http://127.0.0.1:{port}/v1", retries=1)
    writer = EndpointWriter.load(replace(made, endpoint=endpoint))
    with pytest.raises(WriterError, match="no connection"):
        writer.write([an_ask(number) for number in range(8)])
    writer.close()


@pytest.mark.parametrize("changes", [{"url": "localhost:8000"}, {"concurrency": 0}, {"timeout": 0}, {"retries": -1}])
def test_bad_settings_name_their_field(tmp_path, changes):
    made = config(tmp_path, writer="openai")
    with pytest.raises(ValueError, match="endpoint"):
        EndpointWriter.load(replace(made, endpoint=replace(made.endpoint, **changes)))
