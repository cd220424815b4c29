"""Trains the same region predictor WITH masks, to convergence: the upper bound for learning without masks.

    python experiments/train_ceiling.py --out outputs/ceiling
    python evaluate.py --config configs/evaluate_regions.yaml --region.checkpoint outputs/ceiling/region_predictor \\
        --regions_only true --out outputs/ceiling/evaluation

Encoders, predictor and training split are the same; only the supervision differs: binary cross-entropy against the true
cells. The summary.json of its evaluation is committed; nothing else uses its weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from known_edits import known_edits
from pretraining import Schedule, train

from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.encoders import load_encoders
from regionedit.masks import mask_iou
from regionedit.region_predictor import RegionPredictor

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/ceiling"), help="folder to write")
    out = parser.parse_args().out
    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = load_config(TrainConfig, "configs/train_microworld.yaml")
    clip, instruction_encoder = load_encoders(config.encoders)
    predictor = RegionPredictor.from_config(config.predictor, clip.dim, clip.grid)
    predictor.semantic.requires_grad_(False)

    def logits_and_cells(split: str, start: int, count: int):
        known = known_edits(split, 0, range(start, start + count))
        with torch.no_grad():
            patches_BND = clip.encode_image(known.source_BCHW).patches_BND
        prediction = predictor(patches_BND, *instruction_encoder.encode(known.instructions))
        return prediction.logits_BN, known.true_cells(clip.grid).float()

    def loss_of(step: int, share: float):
        return F.binary_cross_entropy_with_logits(*logits_and_cells("train", step * BATCH, BATCH))

    @torch.no_grad()
    def scores() -> dict[str, float]:
        logits_BN, cells_BN = logits_and_cells("validation", 0, 256)
        return {"iou": float(mask_iou(logits_BN > 0, cells_BN > 0).mean())}

    schedule = Schedule(3000, 1e-3, weight_decay=0.01, betas=(0.9, 0.99), evaluate_every=60)
    train(predictor, loss_of, schedule, out / "state.safetensors", 0, scores)
    predictor.save_pretrained(out / "region_predictor")


if __name__ == "__main__":
    main()
