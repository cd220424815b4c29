"""The mask that conditions the generator's proposal: the predicted region, or a mask that does not depend on it.

Shape letters: B batch, N patches, H W pixels. Masks are [0, 1] and 1 means edit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from regionedit import masks
from regionedit.config import StepConfig
from regionedit.device import send

Seeds = Callable[[str], list[int]]

SETTINGS = "proposals.json"
"""File beside stored proposals: the settings that they were made with, {field: value}."""


def check_stored(folder: Path, proposal_mask: str) -> None:
    """Refuse stored proposals that were made with another `step.proposal_mask` than the configured one.

    Raises:
        ValueError: the message names the field and both values and says what to do.
    """
    file = folder / SETTINGS
    made = json.loads(file.read_text()).get("step.proposal_mask", proposal_mask) if file.is_file() else proposal_mask
    if made != proposal_mask:
        raise ValueError(
            f"step.proposal_mask: is {proposal_mask!r}, but the proposals in {folder} were made with {made!r}; set it "
            "to that, or choose another data.proposals (null makes proposals during training)"
        )


def proposal_mask(probability_BN: Tensor, grid: int, size: tuple[int, int], step: StepConfig, seeds: Seeds) -> Tensor:
    """The conditioning mask of `step.proposal_mask`, [B, 1, H, W], without gradient.

    Args:
        probability_BN: the predicted P.
        grid: patches a side.
        size: height and width of the pictures.
        seeds: function from a purpose to one seed per sample; a mask depends on its sample, not on the batch.
    """
    probability_BN = probability_BN.detach().float()
    everywhere_B1HW = probability_BN.new_ones(len(probability_BN), 1, *size)
    if step.proposal_mask == "everything":
        return everywhere_B1HW
    if step.proposal_mask == "random_hard":
        return send(masks.random_hard(seeds("mask"), size), probability_BN.device)
    if step.proposal_mask == "predicted":
        return masks.upsample(probability_BN, grid, size, step.upsample)
    hard_BN = masks.binarize(probability_BN, step.threshold)
    grown_BN = masks.dilate(hard_BN.view(-1, 1, grid, grid), step.dilate).flatten(1)
    explores_B111 = _uniform(seeds("explore")).view(-1, 1, 1, 1) < step.explore
    return torch.where(send(explores_B111, grown_BN.device), everywhere_B1HW, masks.upsample(grown_BN, grid, size))


def _uniform(seeds: list[int]) -> Tensor:
    """A random number in [0, 1) for each seed, [B]."""
    return torch.stack([torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
