"""A whole evaluation in small: packed cases, tiny models, a random region predictor."""

from __future__ import annotations

from pathlib import Path

import torch

from data_prep.microworld.pack import pack
from regionedit.config import EncodersConfig, EvaluateConfig, RegionConfig, StableDiffusionConfig
from regionedit.region_predictor import RegionPredictor
from tests.shards import write_shards

COUNT = 4


def pack_cases(folder: Path, count: int) -> Path:
    pack("test", count, folder, workers=1, seed=0, shard_size=100)
    return folder


def evaluation_config(
    folder: Path, clip: Path, judge: Path, instruction: Path, inpaint: Path, dino: Path, sam: Path
) -> EvaluateConfig:
    torch.manual_seed(0)
    RegionPredictor(dim=32, grid=4, heads=2).save_pretrained(folder / "region_predictor")
    return EvaluateConfig(
        data=str(pack_cases(folder / "benchmark", COUNT)),
        out=str(folder / "out"),
        batch=4,
        device="cpu",
        encoders=EncodersConfig(clip=f"local-dir:{clip}", instruction=str(instruction)),
        generator=StableDiffusionConfig(path=str(inpaint), size=32, num_inference_steps=1, guidance_scale=1.0),
        region=RegionConfig(checkpoint=str(folder / "region_predictor"), sam=str(sam)),
        validation=str(write_shards(folder / "validation", (6,), truth=True)),
        judge=f"local-dir:{judge}",
        dino=str(dino),
    )
