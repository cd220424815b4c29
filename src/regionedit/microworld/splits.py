"""Disjoint random streams: a sample is a pure function of (split, seed, index)."""

from __future__ import annotations

import numpy as np

from regionedit.microworld.edits import Edit, sample_edit
from regionedit.microworld.grammar import OPERATIONS
from regionedit.microworld.scene import sample_scene

SPLITS = ("pretrain", "train", "validation", "test")


def scene_rng(split: str, seed: int, index: int) -> np.random.Generator:
    """The random generator of one sample; the streams of different splits, seeds or indices never overlap.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    return np.random.default_rng([SPLITS.index(split), seed, index])


def sample(split: str, seed: int, index: int, operations: tuple[str, ...] = OPERATIONS) -> Edit:
    """The edit of one sample. Training has only seen pairs and phrasings; validation and test have both.

    A quarter of the validation and test samples use a phrasing that training never shows.
    """
    rng = scene_rng(split, seed, index)
    held_out = split in ("validation", "test")
    unseen_phrasing = held_out and bool(rng.random() < 0.25)
    operation = operations[int(rng.integers(len(operations)))]
    while True:
        scene = sample_scene(rng, allow_unseen=held_out)
        edit = sample_edit(scene, rng, operation, unseen_phrasing=unseen_phrasing, allow_unseen=held_out)
        if edit is not None:
            return edit
