"""Held-out quality of the tiny frozen models, as reported in checkpoints/microworld/README.md.

The true positions of objects are used here for measuring, and nowhere in training.

Shape letters: B pictures, C channels, H W pixels, N patches, D embedding width, G groups of four, Q candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scene_pool import GROUP, HELD_OUT_SEED, group_captions, scene_group
from torch import Tensor
from torch.nn import functional as F

from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.scene import SIZE, Scene
from regionedit.region_scores import TRUTH_COVERAGE

BATCH = 100  # a multiple of GROUP


class HeldOut:
    """Held-out groups of four look-alikes: pictures [4G, 64, 64, 3], and captions worded alike in each group."""

    def __init__(self, groups: int):
        self.groups: list[list[Scene]] = [scene_group(HELD_OUT_SEED, index) for index in range(groups)]
        self.pictures = np.concatenate([render(group) for group in self.groups])
        self.captions = [c for i, g in enumerate(self.groups) for c in group_captions(g, (HELD_OUT_SEED, i))]


def in_batches(function: Callable[[Sequence], Tensor], items: Sequence) -> Tensor:
    """Apply a function to slices of items, without gradient, and concatenate the results."""
    with torch.inference_mode():
        return torch.cat([function(items[start : start + BATCH]).float() for start in range(0, len(items), BATCH)])


def retrieval(images_BD: Tensor, texts_BD: Tensor, captions: Sequence[str]) -> float:
    """Share of pictures whose nearest caption of all has the text of their own. Embeddings are unit length."""
    nearest = (images_BD @ texts_BD.T).argmax(1).tolist()
    return float(np.mean([captions[n] == captions[i] for i, n in enumerate(nearest)]))


def hard_negatives(images_BD: Tensor, texts_BD: Tensor, captions: Sequence[str]) -> float:
    """Share of pictures whose nearest caption of the four in their group is their own (equal captions count)."""
    images, texts = (x.reshape(-1, GROUP, x.shape[-1]) for x in (images_BD, texts_BD))
    nearest = (images @ texts.transpose(1, 2)).argmax(2).reshape(-1).tolist()
    return float(np.mean([captions[i - i % GROUP + n] == captions[i] for i, n in enumerate(nearest)]))


def difference(a: Scene, b: Scene) -> str:
    """What two scenes of a group differ in: count, look, ground, swap (of two colours), shape, color or size."""
    if len(a.things) != len(b.things):
        return "count"
    if a.look != b.look:
        return "look"
    if a.background != b.background:
        return "ground"
    changed = [(x, y) for x, y in zip(a.things, b.things, strict=True) if x != y]
    if len(changed) > 1:
        return "swap"
    x, y = changed[0]
    return "shape" if x.shape != y.shape else "color" if x.color != y.color else "size"


def by_difference(held_out: HeldOut, images_BD: Tensor, texts_BD: Tensor) -> dict[str, float]:
    """Share of pictures nearer to their own caption than to one with each difference (equal texts are left out)."""
    outcomes: dict[str, list[bool]] = {}
    for index, group in enumerate(held_out.groups):
        first = index * GROUP
        for other in range(first + 1, first + GROUP):
            if held_out.captions[first] == held_out.captions[other]:
                continue
            rows = outcomes.setdefault(difference(group[0], group[other - first]), [])
            for own, wrong in ((first, other), (other, first)):
                rows.append(bool(images_BD[own] @ texts_BD[own] > images_BD[own] @ texts_BD[wrong]))
    return {f"tells_{kind}": float(np.mean(rows)) for kind, rows in sorted(outcomes.items())}


def cells(scene: Scene, grid: int) -> np.ndarray:
    """Share of each patch that each object covers, [objects, grid * grid]."""
    side = SIZE // grid
    covered = coverage(scene).reshape(-1, grid, side, grid, side).mean((2, 4))
    return covered.reshape(len(covered), grid * grid)


def localisation(
    scenes: Sequence[Scene], patches_BND: Tensor, encode_phrases: Callable[[list[str]], Tensor]
) -> dict[str, float]:
    """How well patches locate a phrase such as `a red circle`, in scenes with two objects or more.

    Returns:
        patch_hit: share of phrases whose best patch lies on the named object (truth cell: coverage > 0.25).
        patch_pointing: share for which the named object has the highest mean similarity of the scene's objects.
        patch_iou: mean IoU of the similarity map (0 lowest, 1 highest in the picture) at the best single threshold.
    """
    grid = round(patches_BND.shape[1] ** 0.5)
    named = [(b, k) for b, scene in enumerate(scenes) for k in range(len(scene.things)) if len(scene.things) > 1]
    phrases = [f"a {scenes[b].things[k].color} {scenes[b].things[k].shape}" for b, k in named]
    text_QD = in_batches(encode_phrases, phrases)
    patches = F.normalize(patches_BND, dim=-1)
    hits, points, maps, truths = [], [], [], []
    for (b, k), text_D in zip(named, text_QD, strict=True):
        share = cells(scenes[b], grid)
        similarity = (patches[b] @ text_D).numpy()
        hits.append(share[k][similarity.argmax()] > TRUTH_COVERAGE)
        means = [(similarity * s).sum() / max(s.sum(), 1e-6) for s in share]
        points.append(int(np.argmax(means)) == k)
        maps.append((similarity - similarity.min()) / (np.ptp(similarity) + 1e-8))
        truths.append(share[k] > TRUTH_COVERAGE)
    map_QN, truth_QN = np.stack(maps), np.stack(truths)
    best = 0.0
    for threshold in np.linspace(0.05, 0.95, 37):
        inside = map_QN > threshold
        iou = (inside & truth_QN).sum(1) / np.maximum((inside | truth_QN).sum(1), 1)
        best = max(best, float(iou.mean()))
    return {"patch_hit": float(np.mean(hits)), "patch_pointing": float(np.mean(points)), "patch_iou": best}


def clip_scores(
    held_out: HeldOut,
    encode_pictures: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    encode_texts: Callable[[list[str]], Tensor],
) -> dict[str, float]:
    """Retrieval among the groups' first scenes, hard negatives and localisation.

    Args:
        encode_pictures: uint8 BHWC -> (unit global BD, projected patches BND).
        encode_texts: captions -> unit BD.
    """
    texts = in_batches(encode_texts, held_out.captions)
    images, patches = [], []
    with torch.inference_mode():
        for start in range(0, len(held_out.pictures), BATCH):
            image_BD, patches_BND = encode_pictures(held_out.pictures[start : start + BATCH])
            images.append(image_BD.float())
            patches.append(patches_BND[::GROUP].float())
    images_BD, firsts = torch.cat(images), held_out.captions[::GROUP]
    return {
        "retrieval": retrieval(images_BD[::GROUP], texts[::GROUP], firsts),
        "hard_negatives": hard_negatives(images_BD, texts, held_out.captions),
        **by_difference(held_out, images_BD, texts),
    } | localisation([group[0] for group in held_out.groups], torch.cat(patches), encode_texts)
