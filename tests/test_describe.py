"""Captions: read from pixels and instruction, remembered, never invented where none are needed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from regionedit.config import DescribeConfig
from regionedit.describe import DESCRIBERS, Microworld, require_describer
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import Background, Scene, Thing

SCENE = Scene(Background("gray", "plain"), (Thing("circle", "red", 20, 20, 10), Thing("square", "blue", 44, 44, 9)))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(render([SCENE])[0])


@pytest.mark.parametrize(
    ("instruction", "gone", "there"),
    [
        ("make the red circle green", "red circle", "green circle"),
        ("replace the blue square with a yellow triangle", "blue square", "yellow triangle"),
        ("remove the red circle", "red circle", "blue square"),
        ("add a pink circle left of the blue square", "", "pink circle left of the blue square"),
        ("change the background to plain black", "gray background", "plain black background"),
    ],
)
def test_the_target_caption_tells_what_the_instruction_asks(picture, instruction, gone, there):
    (captions,) = Microworld().describe([picture], [instruction])
    assert "red circle" in captions.source and "blue square" in captions.source
    assert there in captions.target and (not gone or gone not in captions.target)


def test_what_the_pixels_do_not_show_is_believed(picture):
    (captions,) = Microworld().describe([picture], ["make the cyan ring red"])
    assert "cyan ring" in captions.source and "red ring" in captions.target


def test_any_size_is_read(picture):
    large = picture.resize((517, 389))
    (captions,) = Microworld().describe([large], ["remove the blue square"])
    assert "blue square" not in captions.target


def test_a_sentence_outside_the_grammar_is_refused(picture):
    with pytest.raises(ValueError, match="grammar"):
        Microworld().describe([picture], ["make it pretty"])


def test_descriptions_are_remembered_by_content(picture, monkeypatch):
    describer, calls = Microworld(), []
    original = describer._describe
    monkeypatch.setattr(describer, "_describe", lambda p, i: calls.append(len(p)) or original(p, i))
    text = "remove the red circle"
    first = describer.describe([picture, picture], [text, text])
    again = describer.describe([Image.fromarray(np.asarray(picture))], [text])
    assert calls == [1] and first[0] == first[1] == again[0]


def test_given_fails_with_the_way_out(picture):
    describer = require_describer("given").load(DescribeConfig(name="given"))
    with pytest.raises(ValueError, match="--target_caption.*microworld"):
        describer.describe([picture], ["x"])


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="describe.name.*microworld"):
        require_describer("qwen")
    assert all(require_describer(name).load(DescribeConfig(name=name)) for name in DESCRIBERS)
