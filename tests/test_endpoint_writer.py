"""The endpoint writer: what it asks, and what it makes of completions and errors; a writer behind an address."""

import json
import sys
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import pytest
import serve_writer
from aiohttp import web
from endpoint_writer import EndpointWriter
from prompt_file import load_prompt
from write_instructions import run
from writers import CUT_OFF, Ask, WriterError

from benchmarks.instructions import served
from regionedit.microworld.splits import sample
from tests.chat_servers import serving
from tests.instruction_fixtures import config, sidecar, write_crawl


@pytest.fixture
def serve(tmp_path):
    """A function that runs a writer against an endpoint; returns the writer's answers and the server."""
    with ExitStack() as stack:

        def serve(respond, asks: int = 1, attempt: int = 0, source: str = "captions", **changes):
            server = stack.enter_context(serving(respond))
            made = config(tmp_path, writer="openai", model="m", source=source)
            writer = EndpointWriter.load(replace(made, endpoint=replace(made.endpoint, url=server.url, **changes)))
            stack.callback(writer.close)
            return writer.write([an_ask(number, attempt) for number in range(asks)]), server

        yield serve


def an_ask(number: int, attempt: int = 0) -> Ask:
    caption = f'a "dog" number {number}'
    messages = load_prompt("instructions").messages(operation="add", wording="plain", caption=caption)
    return Ask(f"k{number}", caption, "add", None, messages, seed=number, attempt=attempt)


def test_what_is_asked_and_every_request_gets_its_own_answer(serve):
    answers, server = serve(lambda body, before: body["messages"][-1]["content"], asks=40)
    assert [json.loads(answer.text)["caption"] for answer in answers] == [f'a "dog" number {n}' for n in range(40)]
    body = next(b for b in server.bodies if b["seed"] == 3)
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m", 0.7, 0.95, 256)
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"operation", "instruction", "target_caption"}
    assert "Authorization" not in server.headers[0]
    assert len({b["messages"][0]["content"] for b in server.bodies}) == 1  # the prefix that a server can cache


def test_what_changes_a_request(serve, monkeypatch):
    """A second attempt has another temperature, given instructions another schema; the key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    _, server = serve(lambda body, before: "yes", attempt=1, source="instructions")
    assert server.bodies[0]["temperature"] == 1.0 and server.headers[0]["Authorization"] == "Bearer secret"
    assert "instruction" not in server.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]
    _, server = serve(lambda body, before: "yes", response_format="none")
    assert "response_format" not in server.bodies[0]


def test_the_clients_retries_are_the_configured_ones(serve):
    answers, server = serve(lambda body, before: web.Response(status=500), asks=2, retries=2)
    assert [answer.failure for answer in answers] == ["endpoint: status 500"] * 2 and len(server.bodies) == 6
    answers, server = serve(lambda body, before: "yes" if before == 2 else web.Response(status=429), retries=2)
    assert [answer.text for answer in answers] == ["yes"] and len(server.bodies) == 3


def test_an_unusable_reply_has_a_reason(serve):
    failures = {
        "endpoint: not a chat completion": {"choices": []},
        "answer: none": {"choices": [{"message": {"content": None}}]},
        CUT_OFF: {"choices": [{"message": {"content": "{"}, "finish_reason": "length"}]},
        "endpoint: not JSON": "<html>busy</html>",
        "answer: too long": "[" * 2_000_000,
    }
    for failure, reply in failures.items():

        def respond(body, before, reply=reply):
            return web.Response(text=reply) if isinstance(reply, str) else reply

        assert serve(respond)[0][0].failure == failure


def test_one_refused_request_is_dropped_and_the_others_succeed(serve):
    answers, _ = serve(lambda body, before: web.Response(status=400) if body["seed"] == 2 else "yes", asks=12)
    assert Counter(a.failure for a in answers) == {"": 11, "refused by the endpoint (status 400)": 1}


def test_a_permanent_endpoint_error_stops_the_run(serve):
    for status, way_out in ((401, "OPENAI_API_KEY"), (404, "endpoint.url or model")):
        with pytest.raises(WriterError, match=rf"{status} .*{way_out}"):
            serve(lambda body, before, status=status: web.Response(status=status), asks=5)


def test_an_endpoint_that_answers_no_request_stops_the_run(serve):
    with pytest.raises(WriterError, match=r"none of 8 requests succeeded \(endpoint: status 503\)"):
        serve(lambda body, before: web.Response(status=503), asks=8)
    # An empty answer does not count as a failed request.
    answers, _ = serve(lambda body, before: {"choices": [{"message": {"content": None}}]}, asks=8)
    assert {answer.failure for answer in answers} == {"answer: none"}


def test_bad_settings_name_their_field(tmp_path):
    made = config(tmp_path, writer="openai")
    for changes in ({"url": "localhost:8000"}, {"concurrency": 0}, {"timeout": 0}, {"retries": -1}):
        with pytest.raises(ValueError, match="endpoint"):
            EndpointWriter.load(replace(made, endpoint=replace(made.endpoint, **changes)))


@pytest.fixture(scope="module")
def address():
    server, url = served("microworld")
    yield url
    server.terminate()
    server.wait()


def test_the_same_lines_over_http(tmp_path, address):
    captions = [[sample("train", 0, index).source_caption for index in range(30)], ["a dog on a sofa"]]
    here, there = write_crawl(tmp_path / "here", captions), write_crawl(tmp_path / "there", captions)
    mix = {"replace": 1.0, "add": 1.0, "background": 1.0}
    direct = run(config(here, writer="microworld", mix=mix))
    made = config(there, writer="openai", mix=mix)
    served = run(replace(made, endpoint=replace(made.endpoint, url=address)))
    assert direct.written == served.written == 30
    assert sidecar(here)[1] == sidecar(there)[1]
    assert sidecar(there)[0]["writer"] == "openai"
    assert served.dropped == {"answer: prose without JSON": 1}


def test_what_is_no_prompt_of_ours_is_refused(address):
    for body in (b"", b"[]", b'{"messages": []}', b'{"messages": [{"content": "hello"}]}'):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/chat/completions", data=body)
        assert error.value.code == 400


def test_a_port_in_use_is_one_line(address, monkeypatch, capsys):
    port = address.split(":")[2].split("/")[0]
    monkeypatch.setattr(sys, "argv", ["serve_writer.py", "--port", port])
    with pytest.raises(SystemExit) as stop:
        serve_writer.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and f"--port: {port} cannot be used" in line
