"""Searches for the region of every training sample's edit, without a gradient: one file of candidates for each shard.

    python data_prep/search_regions.py --config CONFIG --data.features data/features
    python train.py --config CONFIG --data.features data/features

CONFIG is the training's own, with `loss.region` above 0. `--part I --parts N` does every N-th shard, so that several
processes share the work. A finished file is kept as long as settings, models and shards are the same. A run that
was stopped continues when it is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.config import SearchConfig, TrainConfig, generator_of_search
from regionedit.data.features import caption_mark, features_folder, missing_files, region_settings, write_features
from regionedit.data.index import check_part
from regionedit.data.manifest import Manifest
from regionedit.data.shards import BadSample, Sample, ShardReader
from regionedit.device import named, pick_device
from regionedit.dtypes import resolve_training
from regionedit.encoders import FrozenCLIP
from regionedit.generators import load_generator
from regionedit.progress import progress
from regionedit.region_search import Candidates, most_candidates, search


@dataclass
class RegionsConfig(TrainConfig):
    """Settings of the search, in addition to those of a training.

    Args:
        device: auto, cpu, cuda, cuda:0, ...
        part: the share of the shards that this process works on, counted from 0.
        parts: number of shares that the shards are divided into, for several processes or machines.
    """

    device: str = "auto"
    part: int = 0
    parts: int = 1


def search_regions(config: RegionsConfig) -> int:
    """Write the files that are missing or outdated; returns their number.

    Raises:
        ValueError: `data.features` is not set, shards are unusable, or models cannot be loaded; names the field.
        OSError: no space or no permission; finished shards are kept.
    """
    folder = features_folder(config.data.features)
    check_part(config.part, config.parts)
    device = pick_device(config.device, config.part)
    config = resolve_training(config, device)
    manifest = Manifest.open(config.data.train, marks=config.data.marks, allow_gaps=config.data.allow_gaps)
    reader, settings = ShardReader(manifest, config.data.image_size), region_settings(config)
    jobs = missing_files(
        folder, manifest, {"regions": settings}, lambda shard: str(manifest.stamps(shard)), config.part, config.parts
    )
    if not jobs:
        return 0
    print(f"searching regions on {named(device)}: generator in {config.generator.dtype}", flush=True)
    encoders = config.encoders
    clip = FrozenCLIP.load(encoders.clip, encoders.clip_pretrained, encoders.dtype).to(device)
    generator = load_generator(generator_of_search(config), device)
    settings = region_settings(config)  # again: a model that was only now downloaded has a known commit from here on
    with progress("regions", sum(len(job.samples) for job in jobs)) as advance:
        for _, path, stamp, samples in jobs:
            found, keys, marks = [], [], []
            for sample in _readable(reader, samples):
                pair = sample.source_caption, sample.target_caption
                picture_1CHW = torch.tensor(sample.picture_HWC).permute(2, 0, 1)[None].float() / 255
                searched = search(
                    picture_1CHW, [pair], [sample.instruction], [sample.key], clip, generator, config.search
                )
                found.append(_row(next(searched), config.search))
                keys.append(sample.key)
                marks.append(caption_mark(*pair))
                advance(1)
            rows = np.stack(found) if found else np.zeros((0, 1), np.float16)
            write_features(path, settings, stamp, keys, marks, rows)
    return len(jobs)


def _readable(reader: ShardReader, samples: list[int]) -> Iterator[Sample]:
    """Training replaces unreadable samples by others."""
    for number in samples:
        try:
            yield reader.read(number)
        except BadSample:
            continue


def _row(candidates: Candidates, config: SearchConfig) -> np.ndarray:
    """Regions and costs of one sample side by side, float16 [K, N + 3]; costs of padding are NaN."""
    rows = torch.cat([*candidates], dim=1).numpy().astype(np.float16)
    padded = np.zeros((most_candidates(config), rows.shape[1]), np.float16)
    padded[len(rows) :, -candidates.costs_K3.shape[1] :] = np.nan
    padded[: len(rows)] = rows
    return padded


def main() -> None:
    config = parse_command(RegionsConfig)
    with errors_in_one_line("search_regions.py"):
        print(f"{search_regions(config)} files written to {config.data.features}")


if __name__ == "__main__":
    main()
