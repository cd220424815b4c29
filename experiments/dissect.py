"""Analyses where a region predictor fails, and whether its regions have the size of the objects, on held-out edits.

    python experiments/dissect.py --out docs/study/regions.csv
    python experiments/dissect.py --out docs/study/regions_ceiling.csv \\
        --checkpoint outputs/ceiling/region_predictor

`--cells` also writes the share of cells inside the region, by how much of a cell the true region covers.

The edits are those of the test benchmark, one row each. A row describes the edit (operation, number of objects, radius
of the named object, whether another object shares its colour or shape, unseen pair or phrasing) and the region: IoU on
the predictor's grid, pointing, its area and the true one, and the kind of failure if the IoU is below 0.3.

Shape letters: B pictures, N patches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness import options, rounded, show, write_json
from known_edits import KnownEdits, chunks, known_edits
from landscape import largest
from rich.progress import track
from torch import Tensor

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig
from regionedit.encoders import load_encoders
from regionedit.evaluation.region_metrics import iou
from regionedit.files import write_atomic
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import coverage
from regionedit.region_predictor import RegionPredictor
from regionedit.region_scores import LOCAL_OPERATIONS, pointing

CONFIG = ("configs/evaluate_regions.yaml", "evaluation config with models and region")
BATCH = 64
COVERED = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)  # class limits of the share of a cell that the true region covers
FAILED = 0.3  # an IoU below this is a failure
KINDS = ("empty", "elsewhere", "too large", "too small")


@torch.no_grad()
def probabilities(predictor: RegionPredictor, clip, instruction_encoder, known: KnownEdits) -> Tensor:
    """P for every edit, [B, N]."""
    predicted = []
    for b in track(chunks(len(known.edits), BATCH), description="regions"):
        part = known.rows(b)
        patches_BND = clip.encode_image(part.source_BCHW).patches_BND
        predicted.append(predictor(patches_BND, *instruction_encoder.encode(part.instructions)).probability_BN)
    return torch.cat(predicted)


def dissect(known: KnownEdits, probability_BN: Tensor, grid: int, threshold: float) -> pd.DataFrame:
    """One row per edit; NaN where a column does not apply."""
    true_BN = known.true_cells(grid).numpy()
    maps_BHW = masks.upsample(probability_BN, grid, tuple(known.source_BCHW.shape[-2:]))[:, 0].numpy()
    rows = []
    for edit, true_N, p_N, map_HW in zip(known.edits, true_BN, probability_BN.numpy(), maps_BHW, strict=True):
        region_N = p_N > threshold
        score = iou(region_N, true_N)
        rows.append(
            facts(edit)
            | {
                "iou": round(score, 4),
                "pointing": points(edit, map_HW),
                "region_area": round(float(region_N.mean()), 4),
                "true_area": round(float(true_N.mean()), 4),
                "failure": kind_of_failure(region_N, true_N) if score < FAILED else "",
            }
        )
    return pd.DataFrame(rows)


def facts(edit: Edit) -> dict[str, object]:
    """Properties of the edit that may make it hard."""
    named = edit.source.things[edit.named] if edit.named is not None else None
    others = [t for i, t in enumerate(edit.source.things) if i != edit.named] if named else []
    shared = {part for t in others for part in ("color", "shape") if getattr(t, part) == getattr(named, part)}
    return {
        "operation": edit.operation,
        "things": len(edit.source.things),
        "radius": round(named.radius, 1) if named else np.nan,
        "alike": " and ".join(sorted(shared)) if shared else "",
        "pair_seen": not edit.unseen_pair,
        "phrasing_seen": not edit.unseen_phrasing,
    }


def points(edit: Edit, map_HW: np.ndarray) -> float:
    """The benchmark's pointing score; NaN if the edit names no object or the picture has only one."""
    if edit.named is None or len(edit.source.things) < 2:
        return np.nan
    return pointing(map_HW, coverage(edit.source), edit.named)


def kind_of_failure(region_N: np.ndarray, true_N: np.ndarray) -> str:
    """`empty`: no cell is above the threshold; `elsewhere`: the region misses the true one; `too large`, `too small`:
    it overlaps the true region and has more, or fewer, cells."""
    if not region_N.any():
        return "empty"
    if not (region_N & true_N).any():
        return "elsewhere"
    return "too large" if region_N.sum() > true_N.sum() else "too small"


def cells(known: KnownEdits, probability_BN: Tensor, grid: int, threshold: float) -> dict[str, dict[str, float]]:
    """For edits of existing objects, by their neighbours: the share of cells inside the region for each class of
    coverage, and the IoU of the most probable cells, as many as the true region has (`ranked`)."""
    covered_BN = masks.downsample(known.truth_B1HW, grid)
    true_BN = known.true_cells(grid)
    ranked_B = masks.mask_iou(largest(probability_BN, true_BN.sum(1)), true_BN).numpy()
    alike = np.array([_neighbours(edit) for edit in known.edits])
    local = np.array([edit.operation in LOCAL_OPERATIONS for edit in known.edits])
    groups = {}
    for kind in ("alone", "no look-alike", "same shape", "same colour", "both"):
        chosen = local & (alike == kind)
        covered, p = covered_BN.numpy()[chosen], probability_BN.numpy()[chosen]
        classes = {"nothing of it": covered <= COVERED[0]} | {
            f"{low:.0%} to {high:.0%}": (covered > low) & (covered <= high)
            for low, high in zip(COVERED[:-1], COVERED[1:], strict=True)
        }
        groups[kind] = {name: float((p[rows] > threshold).mean()) for name, rows in classes.items()}
        groups[kind] |= {"ranked": float(ranked_B[chosen].mean()), "cases": int(chosen.sum())}
    return rounded(groups)


def _neighbours(edit: Edit) -> str:
    properties = facts(edit)
    names = {"": "no look-alike", "shape": "same shape", "color": "same colour", "color and shape": "both"}
    return "alone" if properties["things"] == 1 else names[properties["alike"]]


def by_operation(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For each operation: cases, IoU, and shares of failures and of their kinds."""
    return {
        operation: {"cases": len(group), "IoU": float(group["iou"].mean())}
        | {"below 0.3": float((group["failure"] != "").mean())}
        | {kind: float((group["failure"] == kind).mean()) for kind in KINDS}
        for operation, group in rows.groupby("operation")
    }


def main() -> None:
    parser = options(__doc__, CONFIG, "docs/study/regions.csv", (1200, "number of test edits"))
    parser.add_argument("--checkpoint", help="region predictor in place of the config's")
    parser.add_argument("--cells", type=Path, help="JSON file for the shares of cells")
    args = parser.parse_args()
    config = load_config(EvaluateConfig, args.config, [])
    clip, instruction_encoder = load_encoders(config.encoders)
    predictor = RegionPredictor.from_pretrained(args.checkpoint or config.region.checkpoint)
    known = known_edits("test", 0, range(args.samples))
    probability_BN = probabilities(predictor, clip, instruction_encoder, known)
    rows = dissect(known, probability_BN, clip.grid, config.region.threshold)
    write_atomic(args.out, rows.to_csv(index=False).encode())
    if args.cells:
        write_json(args.cells, cells(known, probability_BN, clip.grid, config.region.threshold))
    show("where regions fail", by_operation(rows))


if __name__ == "__main__":
    main()
