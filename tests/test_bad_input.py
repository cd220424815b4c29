"""Bad input to an edit: one clear line, exit code 2 (1 for a failed edit), no incomplete file, no stack trace."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infer
from regionedit.command_line import load_config
from regionedit.config import EditConfig
from regionedit.images import open_picture
from regionedit.mask_sources import with_untrained
from regionedit.region_predictor import RegionPredictor
from tests import tiny_models

TEXT = "make the red circle blue"


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def refused(config_file, tmp_path, capsys):
    """Run infer.py, check that it wrote nothing but a log, and return its only line of output."""

    def run(*arguments, code=2) -> str:
        out = tmp_path / "out"
        try:
            got = infer.main(["--config", str(config_file), "--out", str(out), *map(str, arguments)])
        except SystemExit as stop:
            got = stop.code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert got == code and len(lines) == 1 and "Traceback" not in lines[0], lines
        left = [path.name for path in out.rglob("*")] if out.exists() else []
        assert left == (["log.txt"] if code == 1 else []) and (code == 2 or str(out / "log.txt") in lines[0])
        return lines[0]

    return run


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("missing.png", None, "no such file"),
        ("zero.png", b"", "empty"),
        ("text.png", b"no picture at all", "not a picture"),
        ("half.jpg", jpeg()[:700], "truncated"),
    ],
)
def test_pictures_that_cannot_be_used(name, data, says, tmp_path, refused):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    line = refused("--image", tmp_path / name, "--instruction", TEXT)
    assert says in line and name in line


def test_an_unreadable_picture(good, refused, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", denied)
    assert "Permission denied" in refused("--image", good, "--instruction", TEXT)


def test_a_picture_of_400_megapixels(tmp_path, refused):
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    line = refused("--image", path, "--instruction", TEXT)
    assert "max_pixels=50000000" in line and "400000000" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "image: "),
        (["--image", "{good}"], "instruction: empty"),
        (["--image", "{good}", "--instruction", "   "], "instruction: empty"),
        (["--image", "{good}", "--instruction", "x" * 10_000], "instruction: 10000 characters"),
        (["--image", "{good}", "--instruction", TEXT, "--box", "1,2,3"], "box: '1,2,3'"),
        (["--image", "{good}", "--instruction", TEXT, "--box", "9,9,9,20"], "no area"),
        (["--image", "{good}", "--instruction", TEXT, "--box", "90,90,99,99"], "outside the 40x30 picture"),
        (["--image", "{good}", "--instruction", TEXT, "--mask", "none.png"], "none.png: no such file"),
        (["--image", "{good}", "--instruction", TEXT, "--mask", "a.png", "--box", "1,2,3,4"], "mask, box"),
        (["--image", "{good}", "--instruction", TEXT, "--seed", "many"], "seed"),
        (["--image", "{good}", "--instruction", TEXT, "--mask_source", "lerned"], "mask_source"),
        (["--image", "{good}", "--instruction", TEXT, "--describe.name", "qwen"], "describe.name"),
        (["--image", "{good}", "--instruction", TEXT, "--generator.name", "flux"], "generator.name"),
        (["--image", "{good}", "--instruction", TEXT, "--generator.stepz", "2"], "generator.stepz"),
        (["--image", "{good}", "--instruction", TEXT, "--device", "cuda:77"], "device"),
        (["--image", "{good}", "--instruction", TEXT, "--region.checkpoint", "null"], "region.checkpoint"),
        (["--image", "{good}", "--instruction", TEXT, "--region.checkpoint", "{folder}"], "region.checkpoint"),
        (["--image", "{good}", "--instruction", TEXT, "--encoders.clip", "local-dir:{folder}"], "encoders.clip"),
        (["--image", "{good}", "--instruction", TEXT, "--generator.path", "{folder}"], "generator.path"),
        (["--image", "{folder}/empty", "--instruction", TEXT], "no picture in folder"),
        (["--requests", "{folder}/none.jsonl"], "none.jsonl"),
        (["--requests", "{folder}/none.jsonl", "--image", "{good}"], "image: with --requests"),
    ],
)
def test_arguments(arguments, says, good, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    assert says in refused(*(a.format(good=good, folder=tmp_path) for a in arguments))


def test_a_mask_of_another_size(good, tmp_path, refused):
    Image.new("L", (20, 20), 255).save(tmp_path / "m.png")
    line = refused("--image", good, "--instruction", TEXT, "--mask", tmp_path / "m.png")
    assert "20x20" in line and "40x30" in line


def test_a_checkpoint_of_another_clip(good, tmp_path, refused):
    RegionPredictor(dim=2 * tiny_models.WIDTH, grid=tiny_models.GRID).save_pretrained(tmp_path / "other")
    line = refused("--image", good, "--instruction", TEXT, "--region.checkpoint", tmp_path / "other")
    assert "region.checkpoint" in line and "64" in line and "32" in line


def test_the_public_models_without_a_trained_region(good, tmp_path, capsys):
    words = ["--config", "configs/edit_sd15.yaml", "--image", good, "--instruction", TEXT, "--out", tmp_path / "out"]
    assert infer.main([str(word) for word in [*words, "--region.untrained", "null"]]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(way in line for way in ("region.checkpoint", "--mask", "--box", "clip_similarity", "train.py"))
    assert not (tmp_path / "out").exists()


def test_the_public_configuration_falls_back_to_attention_without_a_trained_region():
    config = load_config(EditConfig, "configs/edit_sd15.yaml")
    source, said = with_untrained(config.mask_source, config.region)
    assert source == "ip2p_attention" and "region.checkpoint" in said and config.region.refine == "auto"
    attention = config.region.attention
    assert (attention.path, attention.size, attention.attention_resolution) == ("timbrooks/instruct-pix2pix", 512, 0)
    foi = load_config(EditConfig, "configs/edit_foi.yaml").generator
    read = ("path", "revision", "size", "num_inference_steps", "strength", "guidance_scale", "image_guidance_scale")
    assert all(
        getattr(attention, name) == getattr(foi, name)
        for name in (*read, "mask_steps", "dtype", "attention_resolution")
    )


def test_out_is_a_file(good, config_file, capsys):
    arguments = ["--config", config_file, "--image", good, "--instruction", TEXT, "--out", good]
    assert infer.main([str(a) for a in arguments]) == 2
    assert "a folder is needed" in capsys.readouterr().err


GOOD_ROW = {"image": "good.png", "instruction": TEXT}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["{"], "line 1: not JSON"),
        (["[]"], "line 1: not a JSON object"),
        ([""], "holds no request"),
        ([GOOD_ROW, {"image": "none.png", "instruction": TEXT}], "line 2: image: "),
        ([GOOD_ROW | {"instruction": ""}], "line 1: instruction: empty"),
        ([GOOD_ROW | {"instruction": "x" * 10_000}], "line 1: instruction: 10000"),
        ([GOOD_ROW | {"instructions": ["x"]}], "one of `instruction` and `instructions`"),
        ([{"image": "good.png", "instructions": [3]}], "instructions: 3"),
        ([GOOD_ROW | {"sede": 3}], "unknown field 'sede'"),
        ([GOOD_ROW | {"seed": "3"}], "seed: '3'"),
        ([GOOD_ROW | {"box": [1, 2, 3]}], "box: "),
        ([GOOD_ROW | {"mask": "none.png"}], "mask: "),
        ([GOOD_ROW | {"id": "../x"}], "id: '../x'"),
        ([GOOD_ROW | {"id": "a"}, GOOD_ROW | {"id": "a"}], "line 2: id: 'a' is already used in line 1"),
    ],
)
def test_requests(rows, says, good, tmp_path, refused):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    assert says in refused("--requests", path)


def test_a_failed_edit_exits_with_1(good, refused):
    assert "grammar" in refused("--image", good, "--instruction", "make it pretty", code=1)


def test_a_failed_edit_keeps_its_traceback_and_debug_shows_it(config_file, good, tmp_path, capsys):
    arguments = ["--config", str(config_file), "--out", str(tmp_path / "out"), "--image", str(good)]
    arguments += ["--instruction", "make it pretty"]
    assert infer.main(arguments) == 1
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log and "grammar" in log and "describe" in log
    with pytest.raises(ValueError, match="grammar"):
        infer.main([*arguments, "--debug", "true"])


def test_a_full_disk(good, refused, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = refused("--image", good, "--instruction", TEXT, code=1)
    assert "No space left on device" in line and "out" in line


ACCEPTED = {
    "one pixel": lambda p: Image.new("RGB", (1, 1), "red").save(p / "x.png"),
    "animated": lambda p: Image.new("RGB", (9, 9)).save(
        p / "x.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]
    ),
    "palette": lambda p: Image.new("RGB", (9, 9), "red").convert("P").save(p / "x.png"),
    "16 bit": lambda p: Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(p / "x.png"),
    "cmyk": lambda p: Image.new("CMYK", (9, 9), (9, 90, 30, 0)).save(p / "x.jpg"),
    "alpha": lambda p: Image.new("RGBA", (9, 9), (9, 90, 30, 99)).save(p / "x.png"),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_unusual_pictures_are_edited(kind, config_file, tmp_path):
    ACCEPTED[kind](tmp_path)
    (path,) = tmp_path.glob("x.*")
    words = ["--config", config_file, "--image", path, "--instruction", TEXT, "--out", tmp_path / "out"]
    assert infer.main([str(w) for w in [*words, "--mask_source", "centre_box"]]) == 0
    source, result = np.asarray(open_picture(path)), np.asarray(open_picture(tmp_path / "out" / "result.png"))
    mask = np.asarray(Image.open(tmp_path / "out" / "mask.png"))
    assert result.shape == source.shape and np.array_equal(result[mask == 0], source[mask == 0])


def test_an_empty_mask_returns_the_source_and_says_so(good, config_file, tmp_path, capsys):
    Image.new("L", (40, 30)).save(tmp_path / "m.png")
    words = ["--config", config_file, "--image", good, "--instruction", TEXT, "--mask", tmp_path / "m.png"]
    assert infer.main([str(w) for w in [*words, "--out", tmp_path / "out"]]) == 0
    assert np.array_equal(np.asarray(open_picture(tmp_path / "out" / "result.png")), np.asarray(open_picture(good)))
    assert "region is empty" in capsys.readouterr().out
