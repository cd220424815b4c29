"""Hostile files, requests, lists, arguments and configurations: refused in one clear line, quickly, nothing written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infer
from regionedit.command_line import one_line
from regionedit.mask_files import open_mask
from regionedit.originals import open_source
from regionedit.request_files import read_requests
from tests.hostile_files import GOOD, SIZE, damaged, enormous, stored, unreadable
from tests.hostile_requests import ARGUMENTS, CONFIGURATIONS, IMAGE, LINES, LISTS, ROW, one_clear_line

READERS = {"picture": open_source, "mask": lambda path, most=10**6: open_mask(path, picture=GOOD, max_pixels=most)}
UNREADABLE, ENORMOUS, DAMAGED = unreadable(), enormous(), dict(damaged())


def refusal(read, path, *more) -> str:
    with pytest.raises(ValueError) as refused:
        read(path, *more)
    message = str(refused.value)
    assert message == one_line(message) and len(message) < 700 and "Traceback" not in message, message
    return message


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_picture_is_refused(name, read, tmp_path):
    (tmp_path / "file.png").write_bytes(UNREADABLE[name])
    assert "file.png: " in refusal(read, tmp_path / "file.png")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", ENORMOUS)
def test_a_bomb_is_refused_by_its_header(name, read, tmp_path):
    (tmp_path / "bomb.png").write_bytes(ENORMOUS[name])
    assert "more than max_pixels=1000000" in refusal(read, tmp_path / "bomb.png", 1_000_000)


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_or_read_in_bounds(name, tmp_path):
    (tmp_path / "d").write_bytes(DAMAGED[name])
    try:
        view = open_source(tmp_path / "d", 1_000_000)
    except ValueError as error:
        assert str(error) == one_line(error) and "d: " in str(error)
    else:
        assert view.mode == "RGB" and view.width * view.height <= 1_000_000


@pytest.mark.parametrize(
    "name", ["none.png", "folder", "a" * 300 + ".png", "a" * 10_000, "nul\0.png", "loop", "pipe", "one\nline.png",
             "\x1b[31mred.png", "../" * 400 + "etc/passwd\0.png", "locked/x.png", "good.png/x.png"],
)  # fmt: skip
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_path_that_leads_to_no_file_is_refused(name, read, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "good.png").write_bytes(stored("PNG"))
    with pytest.raises(ValueError) as refused:
        read(tmp_path / name)
    line = one_line(refused.value)
    assert len(line) < 20_000 and line.isprintable(), "a terminal obeys control characters"


MASKS = {
    "another size": Image.new("L", (39, 30), 255),
    "turned": Image.new("L", SIZE[::-1], 255),
    "one pixel": Image.new("L", (1, 1), 255),
    "a picture": GOOD,
    "undefined": Image.fromarray(np.full(SIZE[::-1], np.nan, np.float32)),
    "infinite": Image.fromarray(np.full(SIZE[::-1], np.inf, np.float32)),
    "negative": Image.fromarray(np.full(SIZE[::-1], -1, np.int32)),
    "huge numbers": Image.fromarray(np.full(SIZE[::-1], 2**31 - 1, np.int32)),
    "numbers": Image.fromarray((np.indices(SIZE[::-1])[1] // 9).astype(np.uint8)),
    "colours": Image.composite(Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "green"), GOOD.convert("1")),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_picture_that_is_no_mask_is_refused(name, tmp_path):
    MASKS[name].save(tmp_path / "m.tif")
    assert "mask" in refusal(READERS["mask"], tmp_path / "m.tif")


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
