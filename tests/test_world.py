"""The microworld agrees with itself: captions, instructions, truth and the check of pixels, for every operation."""

from dataclasses import replace

import numpy as np
import pytest

from regionedit.microworld.commands import captions_of, parse
from regionedit.microworld.grammar import OPERATIONS
from regionedit.microworld.pixel_check import check
from regionedit.microworld.renderer import render, with_look
from regionedit.microworld.scene import LOOKS, Scene
from regionedit.microworld.splits import sample
from regionedit.microworld.truth import truth_mask


def edits(operation, count=20):
    return [sample("validation", 8, index, (operation,)) for index in range(count)]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_check_tells_an_edit_that_is_there_from_one_that_is_not_and_it_changes_the_truth_alone(operation):
    for edit in edits(operation):
        source, target = render([edit.source, edit.target])
        assert check(target, edit)
        assert check(source, edit) == (operation == "noop"), edit.instruction
        assert not ((source != target).any(-1) & (truth_mask(edit) == 0)).any()


def test_a_no_op_is_undone_by_any_other_edit():
    others = [edit for operation in OPERATIONS if operation != "noop" for edit in edits(operation, 8)]
    for edit in others:
        asked = replace(edit, operation="noop")
        assert not check(render([edit.target])[0], asked)


def test_captions_differ_in_the_look_alone():
    for edit in edits("global"):
        prefix = f"a {edit.target.look} picture of "
        assert edit.target_caption.startswith(prefix)
        assert edit.target_caption.removeprefix(prefix) == edit.source_caption.removeprefix("a picture of ")
        assert captions_of(edit.source, parse(edit.instruction))[1].startswith(prefix)
    for edit in edits("noop"):
        assert edit.source_caption == edit.target_caption and edit.source == edit.target


def test_looks_by_hand():
    pixel = np.array([200.0, 100.0, 0.0], np.float32)  # its grey level is 0.3 * 200 + 0.59 * 100 = 119
    expected = {
        "dark": [90, 45, 0],
        "bright": [227.5, 177.5, 127.5],
        "greyscale": [119, 119, 119],
        "sepia": [128.52, 102.34, 73.78],
        "moonlit": [60.56, 55.7, 57.12],
    }
    assert set(expected) == set(LOOKS)
    for look, value in expected.items():
        np.testing.assert_allclose(with_look(pixel, look), value, atol=0.01)
    with pytest.raises(ValueError, match="look: 'foggy' is not one of"):
        with_look(pixel, "foggy")


def test_a_scene_survives_its_file():
    scene = edits("global", 1)[0].target
    assert Scene.from_json(scene.to_json()) == scene
    old = scene.to_json()
    del old["look"]
    assert Scene.from_json(old) == replace(scene, look="")
