"""Edits of the microworld as tensors, with ground truth: for measurements and upper bounds, never to train a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regionedit.images import to_pictures
from regionedit.masks import composite, dilate, downsample
from regionedit.microworld.edits import Edit
from regionedit.microworld.grammar import OPERATIONS, CaptionStyle, caption_in_style
from regionedit.microworld.pixel_check import check, find_things
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import SIZE, Scene, sample_scene
from regionedit.microworld.splits import sample
from regionedit.microworld.truth import truth_mask
from regionedit.region_scores import TRUTH_COVERAGE

BATCH = 32  # pictures that a generator gets at a time


@dataclass(frozen=True)
class KnownEdits:
    """Some edits, in order.

    Args:
        edits: the edits.
        source_BCHW: the pictures before the edit, [0, 1].
        truth_B1HW: coverage of the true region, [0, 1].
    """

    edits: list[Edit]
    source_BCHW: Tensor
    truth_B1HW: Tensor

    @classmethod
    def of(cls, edits: list[Edit]) -> KnownEdits:
        """The edits with their pictures and true regions."""
        truth_B1HW = torch.from_numpy(np.stack([truth_mask(edit) for edit in edits]))[:, None].float()
        return cls(edits, pictures([edit.source for edit in edits]), truth_B1HW)

    @property
    def instructions(self) -> list[str]:
        return [edit.instruction for edit in self.edits]

    @property
    def source_captions(self) -> list[str]:
        return [edit.source_caption for edit in self.edits]

    @property
    def target_captions(self) -> list[str]:
        return [edit.target_caption for edit in self.edits]

    def with_instructions(self, instructions: Sequence[str]) -> KnownEdits:
        """The same pictures with other instructions; the true regions stay those of the old instructions."""
        edits = [replace(edit, instruction=text) for edit, text in zip(self.edits, instructions, strict=True)]
        return replace(self, edits=edits)

    def true_cells(self, grid: int) -> Tensor:
        """The cells of the true regions on a grid, bool [B, N]."""
        return downsample(self.truth_B1HW, grid) > TRUTH_COVERAGE

    def rows(self, chosen: Sequence[int]) -> KnownEdits:
        """The edits with these indices."""
        index = list(chosen)
        return KnownEdits([self.edits[i] for i in index], self.source_BCHW[index], self.truth_B1HW[index])


def known_edits(split: str, seed: int, indices: Sequence[int], operations: tuple[str, ...] = OPERATIONS) -> KnownEdits:
    """The samples of a split's stream with these indices."""
    return KnownEdits.of([sample(split, seed, index, operations) for index in indices])


def pictures(scenes: list[Scene]) -> Tensor:
    """Rendered scenes, BCHW in [0, 1]."""
    return torch.from_numpy(render(scenes)).permute(0, 3, 1, 2).float() / 255


def successes(edited_BCHW: Tensor, known: KnownEdits) -> np.ndarray:
    """Whether each edit succeeded, bool [B], by `pixel_check`."""
    pairs = zip(to_pictures(edited_BCHW), known.edits, strict=True)
    return np.array([check(np.asarray(picture), edit) for picture, edit in pairs])


def by_operation(success_B: np.ndarray, known: KnownEdits) -> dict[str, float]:
    """Success rate of each operation, in alphabetical order."""
    named_B = np.array([edit.operation for edit in known.edits])
    return {operation: float(success_B[named_B == operation].mean()) for operation in sorted(set(named_B.tolist()))}


def proposals(generator, source_BCHW: Tensor, mask_B1HW: Tensor, texts: Sequence[str]) -> Tensor:
    """What a generator makes of these pictures, BCHW in [0, 1]; the seeds are 0, 1, ..."""
    parts = []
    for b in chunks(len(texts), BATCH):
        rows = slice(b.start, b.stop)
        parts.append(generator.propose(source_BCHW[rows], mask_B1HW[rows], texts[rows], b))
    return torch.cat(parts)


def presence(generator, count: int) -> dict[str, float]:
    """Success rate of each operation with the true mask, two pixels wider, by `pixel_check`.

    Args:
        generator: generates proposals from captions.
    """
    known = known_edits("validation", 5, range(count), ("replace", "recolour", "remove", "add", "background"))
    mask_B1HW = dilate((known.truth_B1HW > 0.1).float(), 2)
    proposal_BCHW = proposals(generator, known.source_BCHW, mask_B1HW, known.target_captions)
    edited_BCHW = composite(proposal_BCHW, known.source_BCHW, mask_B1HW)
    return by_operation(successes(edited_BCHW, known), known)


def single_objects(generator, count: int) -> float:
    """How often a picture generated from a caption of one object shows only that object, by `pixel_check`."""
    rng = np.random.default_rng(17)
    scenes = [sample_scene(rng, allow_unseen=True, things=1) for _ in range(count)]
    captions = [caption_in_style(scene, CaptionStyle()) for scene in scenes]
    nothing_BCHW, everywhere_B1HW = torch.zeros(count, 3, SIZE, SIZE), torch.ones(count, 1, SIZE, SIZE)
    generated = to_pictures(proposals(generator, nothing_BCHW, everywhere_B1HW, captions))
    pairs_B = [[thing.pair for thing in find_things(np.asarray(picture))] for picture in generated]
    return float(np.mean([pairs == [scene.things[0].pair] for pairs, scene in zip(pairs_B, scenes, strict=True)]))


def change_where(kept_B1HW: Tensor, edited_BCHW: Tensor, known: KnownEdits) -> float:
    """Mean absolute change of the pixels that should stay, where `kept_B1HW` is 1 (else 0)."""
    change_BCHW = (edited_BCHW - known.source_BCHW).abs()
    return float((change_BCHW * kept_B1HW).sum() / (3 * kept_B1HW.sum()))


def chunks(count: int, size: int) -> list[range]:
    """0 to count in ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
