"""The microworld agrees with itself, and so does what data_prep/microworld makes beside plain shards."""

import io
import tarfile
from collections import Counter
from dataclasses import replace

import mismatched
import numpy as np
import oracle_proposals
import pytest
from PIL import Image

from data_prep.microworld import click_cases
from data_prep.microworld.pack import Part, pack
from regionedit.evaluation.benchmarks import BENCHMARKS
from regionedit.microworld.commands import captions_of, parse
from regionedit.microworld.grammar import OPERATIONS
from regionedit.microworld.pixel_check import check
from regionedit.microworld.renderer import coverage, render, with_look
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


def test_every_click_hits_its_object(tmp_path, capsys):
    pack("test", 40, tmp_path / "test", workers=1, seed=0, shard_size=100)
    arguments = ["--data", str(tmp_path / "test"), "--each", "2", "--out", str(tmp_path / "clicks")]
    click_cases.main(arguments)
    assert "6 cases" in capsys.readouterr().out
    packed = {case.id: case for case in BENCHMARKS["microworld"](tmp_path / "test")}
    cases = list(BENCHMARKS["folder"](tmp_path / "clicks"))
    assert Counter(case.operation for case in cases) == dict.fromkeys(click_cases.KINDS, 2)
    for case in cases:
        known = packed[case.id]
        ((x, y),) = case.request.click
        assert coverage(known.truth.source)[known.truth.named][y, x] > 0.5
        assert case.request.mask is None and case.request.instruction == known.request.instruction
        assert np.array_equal(np.asarray(case.truth_image), np.asarray(known.truth_image))
        assert np.array_equal(np.asarray(case.truth_mask) > 127, np.asarray(known.truth_mask) > 127)


def test_a_folder_without_the_benchmark_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        click_cases.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cases.jsonl does not exist" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_of_pictures_moves_none_is_lost_and_another_run_draws_the_same(share):
    order, again = (mismatched.shuffled(200, share, np.random.default_rng(0)) for _ in range(2))
    assert (order != np.arange(200)).sum() == round(200 * share)
    assert sorted(order) == list(range(200)) and (order == again).all()


def test_a_negative_keeps_its_picture_and_requests_an_edit_of_another():
    edits = [sample("train", 0, i) for i in range(4)]
    first, second, third, fourth = mismatched.negatives(edits, np.array([0, 3, 2, 1]))
    assert (first, third) == (edits[0], edits[2])
    assert (second.instruction, fourth.instruction) == (edits[3].instruction, edits[1].instruction)
    for negative, edit in ((second, edits[1]), (fourth, edits[3])):
        assert negative.source == edit.source
        assert negative.target_caption == negative.source_caption == edit.source_caption


def test_perfect_proposals_are_the_edited_pictures_of_the_shard(tmp_path):
    part = Part(tmp_path, "train", 0, 2, 2000, 3)
    oracle_proposals.write_shard(part, "perfect")
    with tarfile.open(tmp_path / "00002.proposals.tar") as tar:
        names = tar.getnames()
        picture = np.asarray(Image.open(io.BytesIO(tar.extractfile("train-000020001.png").read())))
    assert names[:2] == ["train-000020000.png", "train-000020000.mask.png"] and len(names) == 6
    assert np.array_equal(picture, render([sample("train", 0, 2001).target])[0])


def test_relaid_scenes_hold_the_same_objects_elsewhere():
    scene = next(s for s in (sample("train", 0, i).target for i in range(30)) if len(s.things) == 3)
    moved = oracle_proposals.relaid(scene, np.random.default_rng(0))
    assert [t.pair for t in moved.things] == [t.pair for t in scene.things]
    assert all((a.x, a.y) != (b.x, b.y) for a, b in zip(moved.things, scene.things, strict=True))
    assert moved.background.tone == scene.background.tone and moved.background.texture == scene.background.texture
    for i, one in enumerate(moved.things):
        assert all(np.hypot(one.x - o.x, one.y - o.y) > one.radius + o.radius for o in moved.things[i + 1 :])
