"""Proposals of a faultless generator: the right pictures under the right keys, readable by the learner."""

import io
import tarfile

import numpy as np
import oracle_proposals
import pack
from PIL import Image

from regionedit.microworld.renderer import render
from regionedit.microworld.splits import sample


def test_perfect_proposals_are_the_edited_pictures_of_the_shard(tmp_path):
    part = pack.Part(tmp_path, "train", 0, 2, 2000, 3)
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
