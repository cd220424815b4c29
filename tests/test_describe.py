"""The microworld's describer: captions from pixels and instructions, their cache; and the registry of describers."""

import re
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from regionedit.config import DESCRIBE_CONFIGS, EndpointConfig, GivenConfig, VlmConfig
from regionedit.describe import DESCRIBERS, require_describer
from regionedit.describe.microworld import Microworld
from regionedit.editor import Editor
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import Background, Scene, Thing

SCENE = Scene(Background("gray", "plain"), (Thing("circle", "red", 20, 20, 10), Thing("square", "blue", 44, 44, 9)))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(render([SCENE])[0])


@pytest.mark.parametrize(
    ("instructions", "target"),
    [
        (("make the red circle green",), "a green circle and a blue square on a plain gray background"),
        (("make the square green", "remove the circle"), "a green square on a plain gray background"),
        (("remove the circle", "make the square green"), "a green square on a plain gray background"),
        (
            ("make the square red", "make the red square bigger"),
            "a red circle and a large red square on a plain gray background",
        ),
        (
            ("add a pink cross left of the circle", "replace the pink cross with a cyan ring"),
            "a red circle, a blue square and a cyan ring left of the red circle on a plain gray background",
        ),
        (
            ("add a pink cross above the square", "add a cyan ring below the circle", "make the circle yellow"),
            "a yellow circle, a blue square, a pink cross above the blue square and a cyan ring below the yellow circle"
            " on a plain gray background",
        ),
        (("change the background to striped white", "remove the square"), "a red circle on a striped white background"),
    ],
)
def test_instructions_are_applied_in_turn_at_any_picture_size(picture, instructions, target):
    for captions in Microworld().describe([picture, picture.resize((517, 389))], [instructions] * 2):
        assert captions.target == target
        source = captions.source.replace("small ", "")  # said where a later instruction speaks of the size
        assert source == "a red circle and a blue square on a plain gray background"


def test_an_object_that_the_pixels_do_not_show_is_taken_from_the_instruction(picture):
    (captions,) = Microworld().describe([picture], [("make the circle green", "remove the cyan ring")])
    assert "cyan ring" in captions.source and "cyan" not in captions.target and "green circle" in captions.target


@pytest.mark.parametrize(
    ("instructions", "says"),
    [(["make it pretty"], "grammar"), (["remove the circle", "make the red circle green"], "shows no red circle")],
)
def test_an_instruction_that_cannot_be_applied_is_refused(picture, instructions, says):
    with pytest.raises(ValueError, match=says):
        Microworld().describe([picture], [instructions])


def test_descriptions_are_cached_by_content(picture, monkeypatch):
    describer, calls = Microworld(), []
    original = describer._write
    monkeypatch.setattr(describer, "_write", lambda keys, p: calls.append(len(p)) or original(keys, p))
    texts = ("remove the red circle",)
    first = describer.describe([picture, picture], [texts, texts[0]])
    again = describer.describe([Image.fromarray(np.asarray(picture))], [texts])
    assert calls == [1] and first[0] == first[1] == again[0]


def test_a_failure_does_not_lose_the_other_descriptions(picture, monkeypatch):
    describer = Microworld()
    instructions = [("remove the red circle",), ("make it pretty",)]
    with pytest.raises(ValueError, match="grammar"):
        describer.describe([picture, picture], instructions)
    monkeypatch.setattr(describer, "_write", lambda *_: pytest.fail("asked again"))
    assert "red" not in describer.describe([picture], instructions[:1])[0].target


def test_given_fails_and_says_what_to_do(picture):
    describer = require_describer("given").load(GivenConfig())
    with pytest.raises(ValueError, match="--target_caption.*microworld"):
        describer.describe([picture], [("x",)])


@pytest.mark.parametrize("name", DESCRIBERS)
def test_every_describer_loads_or_says_in_one_line_what_it_lacks(name, tmp_path):
    kind = DESCRIBE_CONFIGS[name]
    folders = {"vision": str(tmp_path), "language": str(tmp_path), "cache": None}
    nothing = kind(**{key: value for key, value in folders.items() if key in {f.name for f in fields(kind)}})
    try:
        describer = require_describer(name).load(nothing)
    except ValueError as error:
        assert "describe." in str(error) and "\n" not in str(error)
    else:
        assert describer.keyword("make the ring blue") is None and not describer.names_keywords


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (VlmConfig(), "describe.vision: `vlm` needs a vision-language model"),
        (EndpointConfig(), "describe.endpoint: '' is no address"),
        (EndpointConfig(endpoint="http://127.0.0.1:1/v1"), "describe.endpoint_model"),
        (
            EndpointConfig(endpoint="http://x/v1", endpoint_model="m", api_key_variable="NO_SUCH_KEY"),
            "describe.api_key_variable: the environment has no NO_SUCH_KEY",
        ),
    ],
)
def test_missing_settings_are_named_before_anything_is_loaded(config, says, tiny_edit_config):
    with pytest.raises(ValueError, match=re.escape(says)):
        Editor.from_config(replace(tiny_edit_config, describe=config))
