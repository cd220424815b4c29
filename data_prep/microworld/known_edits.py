"""Edits of the microworld as tensors, with their truth: for ceilings and measurements, never for learning a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regionedit.images import to_pictures
from regionedit.microworld.edits import Edit
from regionedit.microworld.grammar import OPERATIONS
from regionedit.microworld.pixel_check import check
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import Scene
from regionedit.microworld.splits import sample
from regionedit.microworld.truth import truth_mask


@dataclass(frozen=True)
class KnownEdits:
    """Some edits, in order.

    Args:
        edits: what they are.
        source_BCHW: the pictures before, [0, 1].
        truth_B1HW: coverage of the true region, [0, 1].
    """

    edits: list[Edit]
    source_BCHW: Tensor
    truth_B1HW: Tensor

    @property
    def instructions(self) -> list[str]:
        return [edit.instruction for edit in self.edits]

    @property
    def source_captions(self) -> list[str]:
        return [edit.source_caption for edit in self.edits]

    @property
    def target_captions(self) -> list[str]:
        return [edit.target_caption for edit in self.edits]

    def asking(self, instructions: Sequence[str]) -> KnownEdits:
        """The same pictures under other instructions; the truth stays that of the old ones."""
        asked = [replace(edit, instruction=text) for edit, text in zip(self.edits, instructions, strict=True)]
        return replace(self, edits=asked)

    def rows(self, chosen: Sequence[int]) -> KnownEdits:
        """Some of them."""
        index = list(chosen)
        return KnownEdits([self.edits[i] for i in index], self.source_BCHW[index], self.truth_B1HW[index])


def known_edits(split: str, seed: int, indices: Sequence[int], operations: tuple[str, ...] = OPERATIONS) -> KnownEdits:
    """The samples of a split's stream that have these indices."""
    edits = [sample(split, seed, index, operations) for index in indices]
    truth_B1HW = torch.from_numpy(np.stack([truth_mask(edit) for edit in edits]))[:, None].float()
    return KnownEdits(edits, pictures([edit.source for edit in edits]), truth_B1HW)


def pictures(scenes: list[Scene]) -> Tensor:
    """Rendered scenes, BCHW in [0, 1]."""
    return torch.from_numpy(render(scenes)).permute(0, 3, 1, 2).float() / 255


def successes(edited_BCHW: Tensor, known: KnownEdits) -> np.ndarray:
    """Whether each edit is there, bool [B], by `pixel_check`."""
    shown = zip(to_pictures(edited_BCHW), known.edits, strict=True)
    return np.array([check(np.asarray(picture), edit) for picture, edit in shown])


def by_operation(success_B: np.ndarray, known: KnownEdits) -> dict[str, float]:
    """Share of each operation's edits that succeed, by its name in alphabetical order."""
    named_B = np.array([edit.operation for edit in known.edits])
    return {operation: float(success_B[named_B == operation].mean()) for operation in sorted(set(named_B.tolist()))}


def change_where(kept_B1HW: Tensor, edited_BCHW: Tensor, known: KnownEdits) -> float:
    """Mean absolute change of the pixels that should have stayed: `kept_B1HW` is 1 there, else 0."""
    change_BCHW = (edited_BCHW - known.source_BCHW).abs()
    return float((change_BCHW * kept_B1HW).sum() / (3 * kept_B1HW.sum()))


def chunks(count: int, size: int) -> list[range]:
    """0 to count in ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
