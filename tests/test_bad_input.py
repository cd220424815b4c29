"""Bad input to an edit: one clear line, exit code 2 (1 for a failed edit), no incomplete file, no stack trace."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infer
from regionedit.command_line import load_config, run_command
from regionedit.config import EditConfig
from regionedit.mask_sources import with_untrained
from regionedit.region_predictor import RegionPredictor
from tests import tiny_models

TEXT = "make the red circle blue"


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "image: "),
        ("--image {folder}/none.png --instruction x", "none.png: no such file"),
        ("--image {folder}/empty --instruction x", "no picture in folder"),
        ("--image {good}", "instruction: empty"),
        ("--image {good} --instruction=", "instruction: empty"),
        (f"--image {{good}} --instruction {'x' * 10_000}", "instruction: 10000 characters"),
        ("--requests {folder}/none.jsonl", "none.jsonl"),
        ("--requests {folder}/none.jsonl --image {good}", "image: with --requests"),
    ],
)
def test_no_picture_or_no_instruction(arguments, says, good, tmp_path, refused):
    (tmp_path / "empty").mkdir()
    assert says in refused(*arguments.format(good=good, folder=tmp_path).split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--out {good}", "a folder is needed"),
        ("--box 1,2,3", "box: '1,2,3'"),
        ("--box 9,9,9,20", "no area"),
        ("--box 90,90,99,99", "outside the 40x30 picture"),
        ("--mask none.png", "none.png: no such file"),
        ("--mask {folder}/small.png", "mask: 20x20, but the upright picture is 40x30"),
        ("--mask a.png --box 1,2,3,4", "mask, box"),
        ("--seed many", "seed"),
        ("--click 3", "click: '3' is not x,y"),
        ("--click 3,4;5", "click: '3,4;5' is not x,y"),
        ("--click 40,4", "click: 40,4 lies outside the 40x30 picture"),
        ("--click 3,4 --region.sam nobody/no-sam", "region.sam: no SAM could be loaded"),
        ("--workers 0", "workers"),
        ("--region.checkpoint null", "region.checkpoint"),
        ("--region.checkpoint {folder}", "region.checkpoint"),
        ("--encoders.clip local-dir:{folder}", "encoders.clip"),
        ("--generator.path {folder}", "generator.path"),
    ],
)
def test_arguments(arguments, says, good, tmp_path, refused):
    Image.new("L", (20, 20), 255).save(tmp_path / "small.png")
    changes = arguments.format(good=good, folder=tmp_path).split()
    assert says in refused("--image", good, "--instruction", TEXT, *changes)


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


GOOD_ROW = {"image": "good.png", "instruction": TEXT}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([GOOD_ROW, {"image": "none.png", "instruction": TEXT}], "line 2: image: "),
        ([GOOD_ROW | {"instructions": ["x"]}], "one of `instruction` and `instructions`"),
        ([GOOD_ROW | {"sede": 3}], "unknown field 'sede'"),
        ([GOOD_ROW | {"id": "a"}, GOOD_ROW | {"id": "a"}], "line 2: id: 'a' is already used in line 1"),
        ([GOOD_ROW | {"id": "É"}, GOOD_ROW | {"id": "e\u0301"}], "line 2: id: 'e\u0301' is already used in line 1"),
        ([GOOD_ROW | {"id": "Log.txt"}], "line 1: id: 'Log.txt' is the name of a file beside the results"),
        ([GOOD_ROW | {"id": " "}], "line 1: id: ' ' cannot name a folder"),
    ],
)
def test_requests(rows, says, good, tmp_path, refused):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert says in refused("--requests", path)


def test_a_failed_edit_keeps_its_traceback_and_debug_shows_it(good, refused, tmp_path):
    arguments = ["--image", good, "--instruction", "make it pretty"]
    assert "grammar" in refused(*arguments, code=1)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log and "grammar" in log and "describe" in log
    with pytest.raises(ValueError, match="grammar"):
        refused(*arguments, "--debug", "true")


def test_the_name_of_a_file_that_is_no_text_can_be_printed(capsys):
    assert run_command("infer.py", lambda: print(os.fsdecode(b"gr\xfcn.png")), None, debug=False) == 0
    assert capsys.readouterr().out == "gr\\udcfcn.png\n"
