"""What data_prep/microworld makes beside plain shards: clicks, wrong words, a faultless generator's proposals."""

import io
import tarfile
from collections import Counter

import mismatched
import numpy as np
import oracle_proposals
import pytest
from PIL import Image

from data_prep.microworld import click_cases
from data_prep.microworld.pack import Part, pack
from regionedit.evaluation.benchmarks import BENCHMARKS
from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.splits import sample


def test_every_click_hits_its_object(tmp_path, capsys):
    pack("test", 40, tmp_path / "test", workers=1, seed=0, shard_size=100)
    arguments = ["--data", str(tmp_path / "test"), "--each", "2", "--out", str(tmp_path / "clicks")]
    assert click_cases.main(arguments) == 0 and "6 cases" in capsys.readouterr().out
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
    assert click_cases.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
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
