"""A writer behind an address answers as it does without one."""

import sys
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
import serve_writer
from write_instructions import run

from benchmarks.instructions import served
from regionedit.microworld.splits import sample
from tests.instruction_fixtures import config, sidecar, write_crawl


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
