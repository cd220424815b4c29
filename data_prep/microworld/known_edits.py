"""Edits of the microworld as tensors, with their truth: for ceilings and measurements, never for learning a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regionedit.microworld.edits import Edit
from regionedit.microworld.grammar import OPERATIONS
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


def chunks(count: int, size: int) -> list[range]:
    """0 to count in ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
