"""The figure of regions while they are learned."""

from types import SimpleNamespace

import dissect
import pytest
import torch
import watch_regions


@pytest.fixture
def known():
    return watch_regions.look_alikes()


def test_every_kind_of_neighbour_is_there_and_no_picture_twice(known):
    found = [dissect.facts(edit) for edit in known.edits]
    assert [f["alike"] for f in found] == list(watch_regions.ALIKE)
    assert all(f["things"] > 2 for f in found)
    assert len({edit.instruction for edit in known.edits}) == len(known.edits)


def test_snapshots_hold_every_picture_at_the_requested_steps(known):
    snapshots = watch_regions.Snapshots(known, [1, 3])
    p_BN = torch.rand(len(known.edits), 64)
    clip = SimpleNamespace(encode_image=lambda images_BCHW: SimpleNamespace(patches_BND=images_BCHW))
    words = SimpleNamespace(encode=lambda texts: (texts, None))
    module = SimpleNamespace(frozen=(clip, words, None), device="cpu")
    for step in (1, 2, 3):
        module.predictor = lambda *_, step=step: SimpleNamespace(probability_BN=p_BN * step)
        snapshots.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    assert list(snapshots.probability_BN) == [1, 3]
    assert torch.equal(snapshots.probability_BN[3], p_BN * 3)
