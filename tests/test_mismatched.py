"""Shards with wrong words: how many pictures move, and that words stay together."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_of_pictures_moves_and_none_is_lost(script, share):
    order = script("mismatched").shuffled(200, share, np.random.default_rng(0))
    assert (order != np.arange(200)).sum() == round(200 * share)
    assert sorted(order) == list(range(200))


def test_another_run_draws_the_same(script):
    mismatched = script("mismatched")
    first, second = (mismatched.shuffled(50, 0.5, np.random.default_rng(7)) for _ in range(2))
    assert (first == second).all()
