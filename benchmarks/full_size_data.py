"""Shards for the full-size benchmark, as data_prep writes them: pictures of a preset's size, proposals, features.

Only POOL pictures and SAMPLES samples are written. The run reads them as many folders, links to the same files, so that
an epoch is long enough and the disk stays small.

Shape letters: S samples of a shard, D CLIP's width, C h w channels and size of a latent.
"""

from __future__ import annotations

import math
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.loader import add_file, picture, write_shard
from regionedit.config import DataConfig, TrainConfig
from regionedit.data.features import FILES, caption_mark, latent_settings, picture_mark, text_settings, write_features
from regionedit.training.networks import Frozen

POOL = 64
SAMPLES, SHARD = 1024, 128
EPOCH_STEPS = 256
"""Steps of an epoch at least, because loader processes start anew with every epoch."""

SOURCE = "a brown dog with a red ball lies on a grey sofa beside a tall green plant"
INSTRUCTION = "replace the dog by a cat that sleeps"
TARGET = "a white cat that sleeps lies on a grey sofa beside a tall green plant"


def where(data: DataConfig, folder: Path) -> DataConfig:
    """The settings of a run that trains on what `write` writes to `folder`, without validation."""
    folders = max(2, math.ceil(EPOCH_STEPS * data.global_batch / SAMPLES))
    return replace(
        data,
        train=[str(folder / "pairs" / f"crawl_{number:03d}") for number in range(folders)],
        validation=None,
        held_out=0.0,
        features=str(folder / "features") if data.features else None,
        proposals=str(folder / "proposals") if data.proposals else None,
    )


def write(config: TrainConfig, folder: Path, frozen: Frozen) -> None:
    """Write shards, and proposals or features if the configuration has them.

    Args:
        config: its `data` is from `where`, its dtypes are resolved.
        frozen: decides the sizes of the features.
    """
    data = config.data
    rng = np.random.default_rng(0)
    pool = [picture(rng, "jpg", data.image_size) for _ in range(POOL)]
    proposals = [picture(rng, "png", data.image_size) for _ in range(POOL)] if data.proposals else []
    folders = [place for place in (folder / "pairs", data.features, data.proposals) if place]
    first, *others = (Path(train).name for train in data.train)
    for place in map(Path, folders):
        (place / first).mkdir(parents=True)
        for name in others:
            (place / name).symlink_to(first, target_is_directory=True)
    for shard in range(SAMPLES // SHARD):
        keys = [f"{shard:05d}{number:04d}" for number in range(SHARD)]
        pictures = [pool[number % POOL] for number in range(SHARD)]
        name = f"{first}/{shard:05d}"
        write_shard(folder / "pairs" / name, pictures, "jpg", (SOURCE, INSTRUCTION, TARGET))
        if data.proposals:
            with tarfile.open(Path(data.proposals) / f"{name}.proposals.tar", "w") as tar:
                for number, key in enumerate(keys):
                    add_file(tar, f"{key}.png", proposals[number % POOL])
        if data.features:
            text_S2D = rng.standard_normal((SHARD, 2, frozen.clip.dim), np.float32).astype(np.float16)
            _write(config, "text", name, keys, [caption_mark(SOURCE, TARGET)] * SHARD, text_S2D)
        if data.features and frozen.generator is not None:
            size = data.image_size
            one_1Chw = frozen.generator.source_latents(torch.zeros(1, 3, size, size, device=frozen.clip.device))
            latents_SChw = rng.standard_normal((SHARD, *one_1Chw.shape[1:]), np.float32).astype(np.float16)
            _write(config, "latents", name, keys, [*map(picture_mark, pictures)], latents_SChw)


def _write(config: TrainConfig, kind: str, name: str, keys: list[str], marks: list[int], features: np.ndarray) -> None:
    settings = {
        "text": lambda: text_settings(config.encoders),
        "latents": lambda: latent_settings(config.generator, config.data.image_size),
    }
    path = Path(config.data.features) / FILES[kind].format(name)
    write_features(path, settings[kind](), "", keys, marks, features)
