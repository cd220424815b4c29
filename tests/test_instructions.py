"""Several instructions in one request: as one edit or one after another, each with its part of the region."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import infer
from regionedit import display
from regionedit.editor import Editor
from regionedit.images import open_picture
from regionedit.masks import divide
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import Background, Scene, Thing
from regionedit.records import Captions, EditFailure, EditRequest
from regionedit.request_files import split_instructions
from tests.stored_pictures import noise

FIRST, SECOND = "make the red circle blue", "remove the green square"


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.fixture(scope="module")
def editor(tiny_edit_config) -> Editor:
    region = replace(tiny_edit_config.region, threshold=0.5)
    return Editor.from_config(replace(tiny_edit_config, region=region))


@pytest.fixture(scope="module")
def in_turn(editor) -> Editor:
    return Editor(replace(editor.config, joint=False), editor.models)


def test_each_pixel_belongs_to_the_highest_claim():
    mask_B1HW = torch.tensor([[[[1.0, 1, 0, 0.5, 1, 1]]]])
    claims_BKHW = torch.tensor([[[[0.9, 0.2, 0.9, 0, 0, 0]], [[0.1, 0.3, 0, 0, 0, 0.6]]]])
    parts_BKHW = divide(mask_B1HW, claims_BKHW)
    assert parts_BKHW[0, :, 0].tolist() == [[1, 0, 0, 0.5, 0, 0], [0, 1, 0, 0, 1, 1]]
    assert torch.equal(divide(mask_B1HW, torch.zeros(1, 2, 1, 6))[:, :1], mask_B1HW)


def test_the_parts_of_one_edit(editor):
    result = editor.edit(EditRequest(noise(40, 32), (FIRST, SECOND), captions=Captions("", "a blue circle")))
    assert len(result.parts) == 2 and result.share > 0
    first, second = (np.asarray(part) for part in result.parts)
    assert np.array_equal(np.maximum(first, second), np.asarray(result.mask)) and not ((first > 0) & (second > 0)).any()
    alone = editor.edit(EditRequest(noise(40, 32), FIRST, captions=Captions("", "a blue circle")))
    assert alone.parts == () and same(
        editor.edit(EditRequest(noise(40, 32), (FIRST,), captions=alone.captions)).image, alone.image
    )


def test_sequential_instructions_equal_two_single_edits(editor, in_turn):
    picture = noise(40, 32)
    whole = in_turn.edit(EditRequest(picture, (FIRST, SECOND), seed=3, id="a", captions=Captions("x", "y")))
    first = editor.edit(EditRequest(picture, FIRST, seed=3, id="a"))
    second = editor.edit(EditRequest(first.image, SECOND, seed=3, id="a"))
    assert same(whole.image, second.image) and whole.source.tobytes() == picture.tobytes()
    assert same(whole.mask, Image.fromarray(np.maximum(np.asarray(first.mask), np.asarray(second.mask))))
    outside = np.asarray(whole.mask) == 0
    assert np.array_equal(np.asarray(whole.image)[outside], np.asarray(picture)[outside])
    assert [same(part, step.mask) for part, step in zip(whole.parts, (first, second), strict=True)] == [True, True]
    steps = whole.record["steps"]
    assert [step["instruction"] for step in steps] == [FIRST, SECOND]
    assert steps[0]["captions"]["target"] == first.captions.target != steps[1]["captions"]["target"]
    assert len(whole.record["instructions"]) == 2 and whole.record["settings"]["joint"] is False
    assert set(whole.timings) == {"captions", "region", "generate", "composite"} and json.dumps(whole.record)
    assert whole.record["digest"] == in_turn.digest(
        EditRequest(picture, (FIRST, SECOND), seed=3, id="a", captions=Captions("x", "y"))
    )


def test_sequential_instructions_in_a_batch(editor, in_turn):
    requests = [
        EditRequest(noise(40, 32, 1), (FIRST, SECOND), id="two"),
        EditRequest(noise(40, 32, 2), SECOND, id="one"),
        EditRequest(noise(40, 32, 3), (FIRST, "make it pretty"), id="half"),
        EditRequest(noise(40, 32, 4), ("make it pretty", FIRST), id="none"),
    ]
    two, one, half, none = in_turn.edit_batch(requests)
    alone = in_turn.edit(requests[0])
    assert np.abs(np.asarray(two.image).astype(int) - np.asarray(alone.image)).max() <= 1
    assert "steps" not in one.record and one.record["instructions"][0]["text"] == SECOND
    assert isinstance(half, EditFailure) and half.reason.startswith("step 2: ") and "grammar" in half.reason
    assert isinstance(none, EditFailure) and "grammar" in none.reason and none.id == "none"


def test_regions_are_shown_in_colours_of_their_own():
    picture, masks = Image.new("RGB", (40, 30), "white"), []
    for left in (4, 24):
        masks.append(Image.new("L", (40, 30)))
        masks[-1].paste(255, (left, 5, left + 10, 25))
    shown = display.overlay(picture, *masks)
    assert shown.getpixel((4, 10)) == display.TINTS[0] and shown.getpixel((24, 10)) == display.TINTS[1]
    assert shown.getpixel((20, 10)) == (255, 255, 255)


@pytest.fixture
def call(config_file, tmp_path):
    noise(40, 32).save(tmp_path / "in.png")
    begin = ["--config", config_file, "--image", tmp_path / "in.png", "--out", tmp_path / "out"]
    return lambda *arguments: infer.main([str(word) for word in [*begin, *arguments]])


def record(tmp_path) -> dict:
    return json.loads((tmp_path / "out" / "run.json").read_text())


@pytest.mark.parametrize("texts", [[f"{FIRST}; {SECOND};"], [FIRST, SECOND]])
def test_several_instructions_on_a_command_line(texts, call, tmp_path):
    assert call(*(f"--instruction={text}" for text in texts), "--joint", "false") == 0
    assert [i["text"] for i in record(tmp_path)["instructions"]] == [FIRST, SECOND]
    assert len(record(tmp_path)["steps"]) == 2


def test_several_instructions_in_one_edit_are_described_together(call, tmp_path):
    scene = Scene(
        Background("gray", "plain"), (Thing("circle", "red", 20, 20, 10), Thing("square", "green", 44, 44, 9))
    )
    Image.fromarray(render([scene])[0]).save(tmp_path / "in.png")
    assert call("--instruction", f"{FIRST}; {SECOND}", "--mask_source", "centre_box") == 0
    captions = record(tmp_path)["captions"]
    assert captions["target"] == "a blue circle on a plain gray background" and captions["from"] == "microworld"
    assert "red circle" in captions["source"] and "green square" in captions["source"]


def test_one_instruction_stays_one(call, tmp_path):
    assert call("--instruction", FIRST, "--mask_source", "centre_box") == 0
    assert [i["text"] for i in record(tmp_path)["instructions"]] == [FIRST] and "steps" not in record(tmp_path)
    assert split_instructions("  ") == ["  "] and split_instructions(";") == [";"]
    assert infer.one_instruction(["--seed", "1"]) == ["--seed", "1"]


def test_a_click_on_a_command_line(call, tmp_path):
    assert call("--instruction", "x", "--target_caption", "a circle", "--click", "3,4; 5,6") == 0
    assert record(tmp_path)["click"] == [[3, 4], [5, 6]] and record(tmp_path)["mask_source"] == "sam"


def test_an_expression_on_a_command_line(call, tmp_path):
    words = ("--instruction", FIRST, "--mask_source", "everything - drawn", "--box", "0,0,40,16")
    assert call(*words, "--region.grow", "-1") == 0
    assert record(tmp_path)["mask_source"] == "everything - drawn"
    mask = np.asarray(open_picture(tmp_path / "out" / "mask.png"))
    assert not mask[:17].any() and mask[17:].all()


@pytest.fixture
def call_with_requests(config_file, tmp_path):
    """Runs infer.py on rows of requests for the picture in.png."""
    noise(40, 32).save(tmp_path / "in.png")

    def call(*rows: dict) -> int:
        (tmp_path / "r.jsonl").write_text("\n".join(json.dumps({"image": "in.png"} | row) for row in rows))
        words = ["--config", config_file, "--requests", tmp_path / "r.jsonl", "--out", tmp_path / "out"]
        return infer.main([str(word) for word in words])

    return call


def test_clicks_and_instructions_in_requests(call_with_requests, tmp_path):
    instructions = [{"text": FIRST, "strength": 2, "keyword": "circle"}, SECOND]
    rows = [
        {"instruction": "a; b", "click": [3, 4], "id": "one"},
        {"instruction": "a", "click": [[3, 4], [7, 8]], "id": "two"},
        {"instructions": instructions, "id": "three"},
    ]
    assert call_with_requests(*(row | {"target_caption": "t"} for row in rows)) == 0
    one, two, three = (
        json.loads((tmp_path / "out" / name / "run.json").read_text()) for name in ("one", "two", "three")
    )
    assert one["click"] == [[3, 4]] and [i["text"] for i in one["instructions"]] == ["a; b"]
    assert two["click"] == [[3, 4], [7, 8]] and three["click"] is None
    assert three["instructions"][0] == instructions[0]
