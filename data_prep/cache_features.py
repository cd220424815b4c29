"""Compute once what training's frozen networks say of samples that never change; training then reads it.

    python data_prep/cache_features.py --config configs/train_sd15_fast512.yaml --data.features data/features
    python train.py                    --config configs/train_sd15_fast512.yaml --data.features data/features

`{shard}.text_features.safetensors`: CLIP's embeddings of both captions; a step then encodes no text.
`{shard}.latents.safetensors`: the source's latent; a step then encodes the source once less. With
`generator.masked_image: latent` no encoding is left; with `pixel`, the default, the masked picture is another one at
every step and is still encoded. With stored proposals (`data.proposals`) no step needs latents.

Another model, revision, precision, size, caption or picture is refused by train.py. A shard is written whole or not at
all; run again to go on.

Shape letters: B batch, D CLIP's width, C h w of a latent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.config import TrainConfig
from regionedit.data.features import (
    FILES,
    caption_mark,
    latent_settings,
    made_with,
    picture_mark,
    text_settings,
    write_features,
)
from regionedit.data.manifest import Manifest
from regionedit.data.marks import mark_files
from regionedit.data.shards import BadSample, ShardReader
from regionedit.device import pick_device
from regionedit.encoders import FrozenCLIP
from regionedit.generators import StableDiffusion, load_generator, require_generator
from regionedit.precision import settle_training


@dataclass
class FeaturesConfig(TrainConfig):
    """Cache the features of `data.train` for a training configuration, in the folder `data.features`.

    Args:
        text: cache the captions' embeddings.
        latents: cache the sources' latents.
        storage: type of the numbers on disk; float16 halves the disk and rounds to three digits.
        device: cpu, cuda, cuda:1, mps; auto takes what is there.
        batch: samples that are encoded together.
        part: which share of the shards this process makes, from 0.
        parts: into how many shares the shards are divided, for several processes or machines.
    """

    text: bool = True
    latents: bool = True
    storage: Literal["float32", "float16"] = "float16"
    device: str = "auto"
    batch: int = 64
    part: int = 0
    parts: int = 1


def cache_features(config: FeaturesConfig) -> int:
    """Write what is missing or has changed; returns the number of files written now.

    Raises:
        ValueError: no place to write to, unusable shards, or models that cannot be loaded; names the field.
        OSError: no room, no permission; finished shards stay.
    """
    _check(config)
    config = settle_training(config, pick_device(config.device))
    folder = Path(config.data.features)
    manifest = Manifest.open(config.data.train, marks=config.data.marks)
    reader = ShardReader(manifest, config.data.image_size)
    wanted = _settings(config)
    jobs = []
    for shard, samples in list(_shards(manifest))[config.part :: config.parts]:
        for kind, settings in wanted.items():
            path, stamp = folder / FILES[kind].format(shard), _stamp(manifest, shard, config.storage)
            if made_with(path) != (settings, stamp):
                jobs.append((kind, path, stamp, samples))
    if not jobs:
        return 0
    encode = _Encoders(config, {kind for kind, *_ in jobs})
    wanted = _settings(config)  # a model that had to be fetched has a commit only now
    columns = (TextColumn("features"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=sum(len(samples) for *_, samples in jobs))
        for kind, path, stamp, samples in jobs:
            keys, marks, features = [], [], []
            for start in range(0, len(samples), config.batch):
                batch = list(_read(reader, kind, samples[start : start + config.batch]))
                keys += [key for key, _, _ in batch]
                marks += [mark for _, mark, _ in batch]
                if batch:
                    features.append(encode(kind, [content for _, _, content in batch]))
                progress.advance(task, min(config.batch, len(samples) - start))
            stored = np.concatenate(features) if features else np.zeros((0, 1), config.storage)
            write_features(path, wanted[kind], stamp, keys, marks, stored)
    return len(jobs)


def _check(config: FeaturesConfig) -> None:
    if config.data.features is None:
        raise ValueError("data.features: say where to, for example --data.features data/features")
    if not 0 <= config.part < config.parts:
        raise ValueError(f"part: {config.part} of {config.parts} parts; they count from 0")
    if not (config.text or config.latents):
        raise ValueError("text, latents: both are false, so there is nothing to cache")
    if config.latents and not issubclass(require_generator(config.generator.name), StableDiffusion):
        raise ValueError(f"latents: generator {config.generator.name!r} can use none; set --latents false")


def _settings(config: FeaturesConfig) -> dict[str, dict]:
    """By kind, what the features are made with."""
    settings = {}
    if config.text:
        settings["text"] = text_settings(config.encoders)
    if config.latents:
        settings["latents"] = latent_settings(config.generator, config.data.image_size)
    return settings


def _shards(manifest: Manifest) -> Iterator[tuple[str, range]]:
    ends = manifest.sizes.cumsum().tolist()
    for shard, size, end in zip(manifest.shards, manifest.sizes.tolist(), ends, strict=True):
        yield shard, range(end - size, end)


def _stamp(manifest: Manifest, shard: str, storage: str) -> str:
    """Changes with every file that the features of a shard are made from."""
    paths = [manifest.path(part, shard) for part in ("picture", "instruction")] + mark_files(manifest.folder, shard)
    return json.dumps([storage, *([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths)])


def _read(reader: ShardReader, kind: str, samples: Sequence[int]) -> Iterator[tuple[str, int, object]]:
    """Key, mark and what is encoded. A sample that training could not read is left out: it is replaced there."""
    for number in samples:
        try:
            sample = reader.read(number)
        except BadSample:
            continue
        captions = sample.source_caption, sample.target_caption
        if kind == "text":
            yield sample.key, caption_mark(*captions), captions
        else:
            yield sample.key, picture_mark(reader.stored("picture", number)), sample.picture_HWC


class _Encoders:
    """The frozen networks of the kinds that are asked for."""

    def __init__(self, config: FeaturesConfig, kinds: set[str]):
        device, encoders = pick_device(config.device), config.encoders
        self.storage = config.storage
        if "text" in kinds:
            self.clip = FrozenCLIP.load(encoders.clip, encoders.clip_pretrained, encoders.precision).to(device)
        if "latents" in kinds:
            self.generator = load_generator(config.generator, device)

    def __call__(self, kind: str, contents: list) -> np.ndarray:
        if kind == "text":
            texts = [caption for pair in contents for caption in pair]
            found = self.clip.encode_text(texts).unflatten(0, (-1, 2))
        else:
            images_BCHW = torch.from_numpy(np.stack(contents)).permute(0, 3, 1, 2).float() / 255
            found = self.generator.source_latents(images_BCHW)
        return found.cpu().numpy().astype(self.storage)


def main() -> None:
    config = parse_command(FeaturesConfig)
    with errors_in_one_line("cache_features.py"):
        print(f"{cache_features(config)} files written to {config.data.features}")


if __name__ == "__main__":
    main()
