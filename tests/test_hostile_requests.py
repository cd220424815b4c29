"""Hostile requests, lists, arguments, and configurations: one clear line, exit code 2, nothing written."""

import json
from pathlib import Path

import pytest
from PIL import Image

import infer
from regionedit.request_files import read_requests
from tests.hostile_requests import ARGUMENTS, CONFIGURATIONS, IMAGE, LINES, LISTS, ROW, one_clear_line


@pytest.fixture
def folder(tmp_path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "good.png")
    return tmp_path


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_refused_with_its_number(name, folder):
    (folder / "l.jsonl").write_text(json.dumps(ROW) + "\n" + LINES[name])
    with pytest.raises(ValueError) as refused:
        read_requests(folder / "l.jsonl")
    assert "l.jsonl, line 2: " in one_clear_line(str(refused.value))


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, given in LISTS.items() for data in given])
def test_a_list_is_refused(name, data, folder):
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match="requests: |, line ") as refused:
        read_requests(folder / name)
    one_clear_line(str(refused.value))


def refused_by_infer(arguments, folder: Path, capsys) -> str:
    before = sorted(folder.rglob("*"))
    words = ["--config", "configs/edit_microworld.yaml", "--out", str(folder / "out"), *arguments]
    try:
        code = infer.main([word.replace("{folder}", str(folder)) for word in words])
    except SystemExit as stop:
        code = stop.code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert code == 2 and len(lines) == 1, lines
    assert sorted(folder.rglob("*")) == before, "something was written"
    return one_clear_line(lines[0])


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda words: " ".join(words[-2:])[:40].replace("\0", "NUL"))
def test_arguments_are_refused(arguments, folder, capsys):
    refused_by_infer(arguments, folder, capsys)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: repr(text[:30]))
def test_a_configuration_is_refused(text, folder, capsys):
    (folder / "c.yaml").write_bytes(text)
    refused_by_infer((*IMAGE, "--config", "{folder}/c.yaml"), folder, capsys)
    assert not Path("pwned").exists()
