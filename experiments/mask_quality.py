"""Measures how the quality of the mask affects an edit, with true masks degraded in known ways and with the learned
region made wider.

    python experiments/mask_quality.py --out docs/study/mask_quality.json

The in-painter edits with dilated, eroded, shifted and softened true masks, with the true cells of the predictor's grid,
with the whole picture, and with the learned region at several values of `region.dilate`. Scores of each mask: IoU with
the true region, success rate (`pixel_check`), distance to the true result, and change outside the true region.

Shape letters: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from dissect import CONFIG, probabilities
from harness import options, rounded, show, write_json
from known_edits import KnownEdits, by_operation, change_where, known_edits, pictures, proposals, successes
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig
from regionedit.encoders import load_encoders
from regionedit.generators import Generator, load_generator
from regionedit.mask_sources.base import region_from_patches
from regionedit.region_predictor import RegionPredictor
from regionedit.region_scores import LOCAL_OPERATIONS, TRUTH_COVERAGE

GRID = 8  # the shipped predictor's
DILATIONS = (0.0, 0.125, 0.25, 0.375, 0.5, 1.0)  # of the learned region, in patches


def shift(mask_B1HW: Tensor, pixels: int) -> Tensor:
    """Each mask moved by `pixels`, right, down, left and up in turn; what leaves the picture is lost."""
    steps = [(pixels, 0), (0, pixels), (-pixels, 0), (0, -pixels)]
    height, width = mask_B1HW.shape[-2:]
    padded_B1HW = F.pad(mask_B1HW, (pixels,) * 4)
    moved = []
    for b, mask_1HW in enumerate(padded_B1HW):
        right, down = steps[b % len(steps)]
        moved.append(mask_1HW[:, pixels - down : pixels - down + height, pixels - right : pixels - right + width])
    return torch.stack(moved)


def cells(truth_B1HW: Tensor) -> Tensor:
    """The true cells of the predictor's grid, as training and evaluation define them."""
    true_BN = masks.downsample(truth_B1HW, GRID) > TRUTH_COVERAGE
    return masks.upsample(true_BN.float(), GRID, tuple(truth_B1HW.shape[-2:]))


def hard(truth_B1HW: Tensor) -> Tensor:
    """All pixels that the true region touches."""
    return (truth_B1HW > 0.05).float()


ALTERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "eroded 4 px": lambda t: masks.grow(hard(t), -4),
    "eroded 2 px": lambda t: masks.grow(hard(t), -2),
    "truth": hard,
    "dilated 2 px": lambda t: masks.dilate(hard(t), 2),
    "dilated 4 px": lambda t: masks.dilate(hard(t), 4),
    "dilated 8 px": lambda t: masks.dilate(hard(t), 8),
    "dilated 16 px": lambda t: masks.dilate(hard(t), 16),
    "softened 4 px inwards": lambda t: masks.feather(hard(t), 4.0),
    "shifted 2 px": lambda t: shift(hard(t), 2),
    "shifted 4 px": lambda t: shift(hard(t), 4),
    "shifted 8 px": lambda t: shift(hard(t), 8),
    "true cells": cells,
    "true cells, one wider": lambda t: masks.dilate(cells(t), 64 // GRID),
    "everything": torch.ones_like,
}


def learned(config: EvaluateConfig, known: KnownEdits) -> dict[str, Tensor]:
    """The masks B1HW of the learned region for every dilation, by name."""
    clip, instruction_encoder = load_encoders(config.encoders)
    predictor = RegionPredictor.from_pretrained(config.region.checkpoint)
    probability_BN = probabilities(predictor, clip, instruction_encoder, known)
    size, found = tuple(known.source_BCHW.shape[-2:]), {}
    for patches in DILATIONS:
        name = f"learned, {patches * size[0] / GRID:g} px wider" if patches else "learned"
        region = replace(config.region, dilate=patches)
        found[name] = region_from_patches(probability_BN, GRID, size, region).mask_B1HW
    return found


def measure(
    generator: Generator, known: KnownEdits, masks_by_name: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Scores by mask, means over all edits; `success` also for each operation."""
    target_BCHW = pictures([edit.target for edit in known.edits])
    touched_B1HW = hard(known.truth_B1HW)
    results = {}
    for name, mask_B1HW in track(masks_by_name.items(), description="masks"):
        hard_B1HW = (mask_B1HW > 0).float()  # as in an edit: generators get hard masks
        proposal_BCHW = proposals(generator, known.source_BCHW, hard_B1HW, known.target_captions)
        edited_BCHW = masks.composite(proposal_BCHW, known.source_BCHW, mask_B1HW)
        success_B = successes(edited_BCHW, known)
        results[name] = {
            "mask_iou": float(masks.mask_iou(mask_B1HW, touched_B1HW).mean()),
            "area": float(mask_B1HW.mean()),
            "success": float(success_B.mean()),
            "l1_to_target": float((edited_BCHW - target_BCHW).abs().mean()),
            "change_outside_truth": change_where(1 - touched_B1HW, edited_BCHW, known),
        } | {f"success/{operation}": share for operation, share in by_operation(success_B, known).items()}
    return results


def main() -> None:
    samples = (384, "validation edits of existing objects")
    args = options(__doc__, CONFIG, "docs/study/mask_quality.json", samples).parse_args()
    config = load_config(EvaluateConfig, args.config, [])
    known = known_edits("validation", 12, range(args.samples), LOCAL_OPERATIONS)
    altered = {name: alter(known.truth_B1HW) for name, alter in ALTERATIONS.items()}
    results = rounded(measure(load_generator(config.generator), known, altered | learned(config, known)))
    write_json(args.out, results)
    show("edits under altered masks", results)


if __name__ == "__main__":
    main()
