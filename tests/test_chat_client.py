"""The HTTP client against a server on this machine that hangs, refuses, fails, sends nonsense or answers."""

import asyncio
import socket
import time
from contextlib import aclosing

import pytest
from aiohttp import web

from regionedit.chat_client import (
    ChatClient,
    Completion,
    EndpointError,
    NoCompletion,
    Refused,
    SettingNames,
    TooLong,
    Unavailable,
)
from tests.chat_servers import serving

NAMES = SettingNames("THE_KEY", "the.address", "the.model")


def send(url: str, count: int = 1, key: str | None = None, **changes) -> list[Completion | EndpointError]:
    """What `count` requests with different messages get."""
    settings = {"concurrency": 8, "timeout": 5.0, "attempts": 3, "backoff": 0.001, "longest_wait": 0.2} | changes

    async def send_all():
        async with aclosing(ChatClient(url, key, names=NAMES, **settings)) as client:
            bodies = [{"messages": [str(number)]} for number in range(count)]
            made = (client.complete(lambda body=body: body) for body in bodies)
            return await asyncio.gather(*made, return_exceptions=True)

    return asyncio.run(send_all())


def texts(got: list) -> list[str | None]:
    return [completion.text for completion in got]


def test_every_request_gets_its_own_answer_and_concurrency_is_limited():
    async def echo(body, before):
        await asyncio.sleep(0.002)
        return body["messages"][0]

    with serving(echo) as server:
        assert texts(send(server.url, 40, concurrency=7)) == [str(number) for number in range(40)]
    assert server.most == 7 and "Authorization" not in server.headers[0]


def test_a_body_is_made_when_its_turn_comes():
    made, waiting = [], []

    async def send_all(url):
        settings = {"concurrency": 2, "timeout": 5.0, "attempts": 1, "backoff": 0.0, "longest_wait": 0.0}
        async with aclosing(ChatClient(url, None, names=NAMES, **settings)) as client:
            await asyncio.gather(*(client.complete(lambda: made.append(1) or {"messages": []}) for _ in range(9)))

    def respond(body, before):
        waiting.append(len(made) - before)
        return "yes"

    with serving(respond) as server:
        asyncio.run(send_all(server.url))
    assert len(made) == 9 and max(waiting) <= 2


def test_a_busy_server_and_a_lost_connection_are_tried_again():
    faults = [408, 409, 425, 429, 500, 502, 503, 504, 529, None]

    def fail_once(body, before):
        if before:
            return "yes"
        if status := faults[int(body["messages"][0])]:
            return web.Response(status=status)
        raise asyncio.CancelledError  # closes the connection without a response

    with serving(fail_once) as server:
        assert texts(send(server.url, len(faults))) == ["yes"] * 10 and len(server.bodies) == 20


def test_attempts_are_limited_and_the_error_says_what_the_server_said():
    reply = {"text": "over\nloaded", "status": 503, "headers": {"Retry-After": "1000"}}
    with serving(lambda body, before: web.Response(**reply)) as server:
        started = time.monotonic()
        errors = send(server.url, 2)
    assert time.monotonic() - started < 5 and len(server.bodies) == 6
    assert {(type(e), e.reason, str(e)) for e in errors} == {
        (Unavailable, "status 503", "status 503 Service Unavailable: over loaded")
    }


def test_a_hanging_server_times_out_and_the_others_answer():
    async def hang(body, before):
        await asyncio.sleep(30 if body["messages"] == ["1"] else 0)
        return "yes"

    started = time.monotonic()
    with serving(hang) as server:
        one, hung, two = send(server.url, 3, timeout=1.0, attempts=2)
    assert time.monotonic() - started < 20 and texts([one, two]) == ["yes", "yes"]
    assert isinstance(hung, Unavailable) and str(hung) == hung.reason == "no answer within 1 s"


@pytest.mark.parametrize("retry_after", ["0.3", "date"])
def test_retry_after_is_read_by_the_servers_clock_and_holds_for_all_requests(retry_after):
    dates = {"Date": "Wed, 01 Jan 2020 00:00:00 GMT", "Retry-After": "Wed, 01 Jan 2020 00:00:09 GMT"}
    headers = dates if retry_after == "date" else {"Retry-After": retry_after}
    times = []

    def busy(body, before):
        times.append(time.monotonic())
        return web.Response(status=429, headers=headers) if len(times) == 1 else "yes"

    with serving(busy) as server:
        assert texts(send(server.url, 2, concurrency=1, longest_wait=0.4)) == ["yes", "yes"]
    assert 0.25 < times[1] - times[0] < 5


def test_a_server_that_is_not_there_is_given_up():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (error,) = send(f"http://127.0.0.1:{port}/v1")
    assert isinstance(error, Unavailable) and error.reason == "no connection" and str(error).startswith("Client")


@pytest.mark.parametrize(
    ("reply", "kind", "reason", "requests"),
    [
        (b"", NoCompletion, "not JSON", 3),
        (b"<html>busy</html>", NoCompletion, "not JSON", 3),
        (b"\xff\xfe", NoCompletion, "not JSON", 3),
        (b'{"choices": [', NoCompletion, "not JSON", 3),
        (b"[" * 500_000, NoCompletion, "not JSON", 3),
        (b"{}", NoCompletion, "not a chat completion", 3),
        (b'{"choices": []}', NoCompletion, "not a chat completion", 3),
        (b'{"choices": [[]]}', NoCompletion, "not a chat completion", 3),
        (b'{"choices": [{"message": {}}]}', NoCompletion, "not a chat completion", 3),
        (b"[" * 2_000_000, TooLong, "too long", 1),
    ],
    ids=["empty", "html", "binary", "half", "deep", "no choices", "no choice", "list", "no content", "long"],
)
def test_a_reply_that_is_no_completion_is_an_error(reply, kind, reason, requests):
    with serving(lambda body, before: web.Response(body=reply)) as server:
        (error,) = send(server.url)
    assert type(error) is kind and error.reason == reason and len(server.bodies) == requests


@pytest.mark.parametrize(("content", "text"), [("{", "{"), (None, None), ([1], None)])
def test_the_text_of_a_completion_and_whether_it_ends(content, text):
    for ended in ("stop", "length"):
        choice = {"message": {"content": content}, "finish_reason": ended}
        with serving(lambda body, before, choice=choice: {"choices": [choice]}) as server:
            assert send(server.url) == [Completion(text, ended == "length")]


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, ""), (422, ""), (401, "set THE_KEY"), (403, "set THE_KEY"), (404, "correct the.address or the.model"),
     (405, "correct the.address")],
)  # fmt: skip
def test_a_refusal_is_raised_at_once_and_stops_no_other_request(status, advice):
    def refuse(body, before):
        return web.json_response({"error": "no\nway"}, status=status) if body["messages"] == ["2"] else "yes"

    with serving(refuse) as server:
        got = send(server.url, 12)
    error = got.pop(2)
    assert isinstance(error, Refused) and error.advice == advice and error.reason == f"status {status}"
    assert "no" in str(error) and "\n" not in str(error)
    assert texts(got) == ["yes"] * 11 and len(server.bodies) == 12
