"""A pool of rendered scenes in groups of four look-alikes, made once and shared by all pre-training."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from rich.progress import track

from regionedit.microworld.grammar import caption, neighbours
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import SIZE, Scene, sample_scene
from regionedit.microworld.splits import scene_rng

GROUP = 4  # a scene and three hard negatives
POOL_SEED, HELD_OUT_SEED = 0, 1  # disjoint streams of the split "pretrain"
CHUNK = 64


def scene_group(seed: int, index: int) -> list[Scene]:
    """Four scenes that differ from the first in one attribute each. The whole world, unseen pairs included: the
    frozen models stand for public ones, which have seen what a learner on top of them has not."""
    rng = scene_rng("pretrain", seed, index)
    while True:
        scene = sample_scene(rng, allow_unseen=True)
        if scene.things:
            return [scene, *neighbours(scene, rng, GROUP - 1)]


def group_captions(group: list[Scene], seed: tuple[int, ...]) -> list[str]:
    """One caption for each scene, worded alike, so that they differ in what the scenes differ in and no more."""
    return [caption(scene, np.random.default_rng(seed)) for scene in group]


class ScenePool:
    """Scenes in memory, their pictures in a memory-mapped .npy file.

    Args:
        file: uint8 [groups * 4, 64, 64, 3]; rendered on first use, then reused.
        groups: number of groups.
        seed: of the stream that the scenes come from.
    """

    def __init__(self, file: Path, groups: int, seed: int = POOL_SEED):
        indices = track(range(groups), description="scenes")
        self.groups = [scene_group(seed, index) for index in indices]
        self.simple = np.flatnonzero([len(group[0].things) == 1 for group in self.groups])
        if not file.is_file():
            self._render(file)
        self.pictures = np.load(file, mmap_mode="r")
        if len(self.pictures) != groups * GROUP:
            raise ValueError(f"{file} holds {len(self.pictures)} pictures, not {groups * GROUP}; remove it")

    def _render(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.stem}.{os.getpid()}.part.npy")
        shape = (len(self.groups) * GROUP, SIZE, SIZE, 3)
        pictures = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        for start in track(range(0, len(self.groups), CHUNK), description="pictures"):
            scenes = [scene for group in self.groups[start : start + CHUNK] for scene in group]
            pictures[start * GROUP : start * GROUP + len(scenes)] = render(scenes)
        pictures.flush()
        os.replace(part, file)

    def batch(self, seed: int, step: int, groups: int, simple: float = 0.0) -> tuple[np.ndarray, list[str]]:
        """Pictures uint8 [groups * 4, 64, 64, 3] and captions: a pure function of the arguments.

        Args:
            simple: probability of a batch whose groups all start from a scene of one thing.
        """
        rng = np.random.default_rng([seed, step])
        candidates = self.simple if rng.random() < simple else len(self.groups)
        chosen = rng.choice(candidates, groups, replace=False)
        rows = (chosen[:, None] * GROUP + np.arange(GROUP)).reshape(-1)
        captions = [c for g in chosen for c in group_captions(self.groups[g], (seed, step, int(g)))]
        return self.pictures[rows], captions
