"""Shards with wrong words: how many pictures move, and that words stay together."""

import mismatched
import numpy as np
import pytest

from regionedit.microworld.splits import sample


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
