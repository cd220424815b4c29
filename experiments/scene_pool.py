"""A pool of rendered scenes in groups of four look-alikes, rendered once and shared by all pre-training scripts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from regionedit.microworld.edits import neighbours
from regionedit.microworld.grammar import caption
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import LOOKS, SHAPES, SIZE, Scene, sample_scene
from regionedit.microworld.splits import scene_rng

GROUP = 4  # a scene and three hard negatives
POOL_SEED, HELD_OUT_SEED = 0, 1  # disjoint streams of the split "pretrain"
CHUNK = 64
MEAN, STD = 0.5, 0.25  # of pixels in [0, 1], in `to_input`
LOOKED = 0.08  # share of scenes with one of LOOKS


def with_random_look(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene in one of the looks, with probability LOOKED."""
    return replace(scene, look=str(rng.choice(LOOKS)) if rng.random() < LOOKED else "")


def scene_group(seed: int, index: int) -> list[Scene]:
    """Four scenes that differ from the first in one attribute each. They come from the whole world, unseen pairs
    included: the frozen models imitate public ones, which have seen what a model trained on top of them has not."""
    rng = scene_rng("pretrain", seed, index)
    while True:
        scene = sample_scene(rng, allow_unseen=True)
        if scene.things:
            scene = with_random_look(scene, rng)
            return [scene, *neighbours(scene, rng, GROUP - 1)]


def shape_group(seed: int, index: int) -> list[Scene]:
    """Four scenes of one to three objects that differ in one object's shape: practice for what is learned last."""
    rng = scene_rng("pretrain", seed, 1_000_000_000 + index)
    scene = sample_scene(rng, allow_unseen=True, things=int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])))
    which = int(rng.integers(len(scene.things)))
    taken = {t.pair for i, t in enumerate(scene.things) if i != which}
    free = [s for s in SHAPES if (scene.things[which].color, s) not in taken]
    shapes = rng.permutation(free)[:GROUP]
    if len(shapes) < GROUP:
        return shape_group(seed, index + 500_000_000)
    varied = (replace(scene.things[which], shape=str(s)) for s in shapes)
    return [replace(scene, things=(*scene.things[:which], t, *scene.things[which + 1 :])) for t in varied]


def group_captions(group: list[Scene], seed: tuple[int, ...]) -> list[str]:
    """One caption for each scene, all with the same wording, so that they differ only in what the scenes differ in."""
    return [caption(scene, np.random.default_rng(seed)) for scene in group]


def brief_caption(scene: Scene) -> str:
    """The objects only, for example `a red circle and a blue ring`."""
    return " and ".join(f"a {thing.color} {thing.shape}" for thing in scene.things)


class Batch(NamedTuple):
    """Whole groups: their rows in the pool, their pictures uint8 [groups * 4, 64, 64, 3] and captions."""

    rows: np.ndarray
    pictures: np.ndarray
    captions: list[str]


class ScenePool:
    """Scenes in memory, their pictures in a memory-mapped .npy file.

    Args:
        file: uint8 [groups * 4, 64, 64, 3]; rendered on first use, then reused.
        groups: number of groups.
        make: (seed, index) -> a group.
    """

    def __init__(self, file: Path, groups: int, make: Callable[[int, int], list[Scene]] = scene_group):
        self.groups = [make(POOL_SEED, index) for index in track(range(groups), description="scenes")]
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

    def batch(self, seed: int, step: int, groups: int, brief: bool = False) -> Batch:
        """A random batch, a pure function of the arguments.

        Args:
            brief: captions mention the objects and nothing else.
        """
        chosen = np.random.default_rng([seed, step]).choice(len(self.groups), groups, replace=False)
        rows = (chosen[:, None] * GROUP + np.arange(GROUP)).reshape(-1)
        if brief:
            captions = [brief_caption(scene) for g in chosen for scene in self.groups[g]]
        else:
            captions = [c for g in chosen for c in group_captions(self.groups[g], (seed, step, int(g)))]
        return Batch(rows, self.pictures[rows], captions)


def common_pool(work: Path, groups: int) -> ScenePool:
    """Scenes of every kind."""
    return ScenePool(work / f"pool_{groups}.npy", groups)


def both_pools(work: Path, groups: int) -> tuple[ScenePool, ScenePool]:
    """`common_pool`, and half as many groups of scenes with few objects, which train shapes."""
    few = groups // 2
    return common_pool(work, groups), ScenePool(work / f"drill_{few}.npy", few, make=shape_group)


def to_input(pictures_BHWC: np.ndarray) -> Tensor:
    """uint8 BHWC -> float BCHW, normalised as the small encoders need it."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures_BHWC)).permute(0, 3, 1, 2).float() / 255
    return (pixels - MEAN) / STD
