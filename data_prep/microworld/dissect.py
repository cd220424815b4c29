"""Where does a region predictor fail, and does its region have the size of the thing? One row per held-out edit.

    python data_prep/microworld/dissect.py --out docs/study/regions.csv
    python data_prep/microworld/dissect.py --out docs/study/regions_ceiling.csv \\
        --checkpoint outputs/ceiling/region_predictor

With `--cells` also which cells it takes: the share of them inside the region by how much of the cell is truly covered.

The test stream of the benchmark. Every row says what the edit is (operation, things in the picture, the named thing's
radius, whether another thing shares its colour or shape, unseen pair or phrasing) and what the region is: IoU on the
predictor's grid, pointing, its area and the true one, and, below an IoU of 0.3, which kind of failure it is.

Shape letters: B pictures, N patches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from known_edits import KnownEdits, chunks, known_edits
from landscape import largest
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig
from regionedit.encoders import load_encoders
from regionedit.evaluation.microworld_scores import Pointing
from regionedit.evaluation.region_metrics import iou
from regionedit.files import write_atomic
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import coverage
from regionedit.region_predictor import RegionPredictor
from regionedit.training.scores import LOCAL_OPERATIONS, TRUTH_COVERAGE

BATCH = 64
COVERED = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)  # between classes of cells, by the share of a cell that is truly covered
FAILED = 0.3  # an IoU below it is a failure
KINDS = ("empty", "elsewhere", "too large", "too small")


@torch.no_grad()
def probabilities(predictor: RegionPredictor, clip, instruction_encoder, known: KnownEdits) -> Tensor:
    """P for every edit, [B, N]."""
    found = []
    for b in track(chunks(len(known.edits), BATCH), description="regions"):
        part = known.rows(b)
        patches_BND = clip.encode_image(part.source_BCHW).patches_BND
        found.append(predictor(patches_BND, *instruction_encoder.encode(part.instructions)).probability_BN)
    return torch.cat(found)


def dissect(known: KnownEdits, probability_BN: Tensor, grid: int, threshold: float) -> pd.DataFrame:
    """One row per edit; NaN where a column does not apply."""
    true_BN = (masks.downsample(known.truth_B1HW, grid) > TRUTH_COVERAGE).numpy()
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
    """What the edit asks for, as far as it may make it hard."""
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
    """Pointing, as the benchmark scores it."""
    if edit.named is None or len(edit.source.things) < 2:
        return np.nan
    return Pointing.point(map_HW, coverage(edit.source), edit.named)


def kind_of_failure(region_N: np.ndarray, true_N: np.ndarray) -> str:
    """`empty`: nothing is above the threshold; `elsewhere`: it misses the truth; `too large`, `too small`: it has more,
    or fewer, cells than the truth, and meets it."""
    if not region_N.any():
        return "empty"
    if not (region_N & true_N).any():
        return "elsewhere"
    return "too large" if region_N.sum() > true_N.sum() else "too small"


def cells(known: KnownEdits, probability_BN: Tensor, grid: int, threshold: float) -> dict[str, dict[str, float]]:
    """Of local edits, by the neighbours of the thing: the share of cells inside the region, class of coverage by class,
    and the IoU if the region had as many cells as the truth, its likeliest ones (`ranked`)."""
    covered_BN = masks.downsample(known.truth_B1HW, grid)
    true_BN = covered_BN > TRUTH_COVERAGE
    ranked_B = masks.mask_iou(largest(probability_BN, true_BN.sum(1)), true_BN).numpy()
    alike = np.array([_neighbours(edit) for edit in known.edits])
    local = np.array([edit.operation in LOCAL_OPERATIONS for edit in known.edits])
    found = {}
    for kind in ("alone", "no look-alike", "same shape", "same colour", "both"):
        chosen = local & (alike == kind)
        covered, p = covered_BN.numpy()[chosen], probability_BN.numpy()[chosen]
        classes = {"nothing of it": covered <= COVERED[0]} | {
            f"{low:.0%} to {high:.0%}": (covered > low) & (covered <= high)
            for low, high in zip(COVERED[:-1], COVERED[1:], strict=True)
        }
        found[kind] = {name: round(float((p[rows] > threshold).mean()), 4) for name, rows in classes.items()}
        found[kind] |= {"ranked": round(float(ranked_B[chosen].mean()), 4), "cases": int(chosen.sum())}
    return found


def _neighbours(edit: Edit) -> str:
    found = facts(edit)
    names = {"": "no look-alike", "shape": "same shape", "color": "same colour", "color and shape": "both"}
    return "alone" if found["things"] == 1 else names[found["alike"]]


def show(rows: pd.DataFrame, console: Console) -> None:
    table = Table("operation", "cases", "IoU", "below 0.3", *KINDS, title="where regions fail")
    for operation, group in rows.groupby("operation"):
        failed = group["failure"] != ""
        kinds = (f"{(group['failure'] == kind).mean():.0%}" for kind in KINDS)
        table.add_row(operation, str(len(group)), f"{group['iou'].mean():.3f}", f"{failed.mean():.0%}", *kinds)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/evaluate_rivals.yaml", help="whose encoders and region")
    parser.add_argument("--checkpoint", help="another region than the configuration's")
    parser.add_argument("--samples", type=int, default=1200, help="test edits")
    parser.add_argument("--out", type=Path, default=Path("docs/study/regions.csv"))
    parser.add_argument("--cells", type=Path, help="JSON file for the cells")
    args = parser.parse_args()
    config = load_config(EvaluateConfig, args.config, [])
    clip, instruction_encoder = load_encoders(config.encoders)
    predictor = RegionPredictor.from_pretrained(args.checkpoint or config.region.checkpoint)
    known = known_edits("test", 0, range(args.samples))
    probability_BN = probabilities(predictor, clip, instruction_encoder, known)
    rows = dissect(known, probability_BN, clip.grid, config.region.threshold)
    write_atomic(args.out, rows.to_csv(index=False).encode())
    if args.cells:
        told = cells(known, probability_BN, clip.grid, config.region.threshold)
        write_atomic(args.cells, json.dumps(told, indent=1).encode())
    show(rows, Console())


if __name__ == "__main__":
    main()
