"""Compute the frozen networks' features once for all samples; training then reads them from disk.

    python data_prep/cache_features.py --config configs/train_sd15_fast512.yaml --data.features data/features
    python train.py                    --config configs/train_sd15_fast512.yaml --data.features data/features

`{shard}.text_features.safetensors` holds the CLIP embeddings of both captions; a training step then encodes no text.
`{shard}.latents.safetensors` holds the source's latent; a training step then encodes the source one time fewer. With
`generator.masked_image: latent` a step encodes no picture at all. With `pixel`, the default, the masked picture differs
at every step and is still encoded. With stored proposals (`data.proposals`) no step needs latents.

train.py refuses features that were made with another model, revision, precision, size, caption or picture. Each file is
written completely or not at all; run the command again to continue.

Shape letters: B batch, D CLIP's width, C h w of a latent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.config import TrainConfig
from regionedit.data.features import (
    caption_mark,
    features_folder,
    latent_settings,
    missing_files,
    picture_mark,
    text_settings,
    write_features,
)
from regionedit.data.index import check_part
from regionedit.data.manifest import Manifest
from regionedit.data.shards import BadSample, ShardReader
from regionedit.device import named, pick_device
from regionedit.dtypes import resolve_training
from regionedit.encoders import FrozenCLIP
from regionedit.generators import StableDiffusion, load_generator, require_generator
from regionedit.progress import progress


@dataclass
class FeaturesConfig(TrainConfig):
    """Cache the features of `data.train` for a training configuration, in the folder `data.features`.

    Args:
        text: cache the captions' embeddings.
        latents: cache the sources' latents.
        storage: type of the numbers on disk; float16 takes half the space and keeps about three digits.
        device: cpu, cuda, cuda:1, mps; auto takes a GPU if there is one. `auto` and `cuda` choose among several GPUs:
            the number that torchrun or srun gave this process, else `part`.
        batch: number of samples encoded together.
        part: the share of the shards that this process works on, counted from 0.
        parts: number of shares that the shards are divided into, for several processes or machines.
    """

    text: bool = True
    latents: bool = True
    storage: Literal["float32", "float16"] = "float16"
    device: str = "auto"
    batch: int = 64
    part: int = 0
    parts: int = 1


def cache_features(config: FeaturesConfig) -> int:
    """Write the files that are missing or outdated; returns the number of files written.

    Raises:
        ValueError: `data.features` is not set, shards are unusable, or models cannot be loaded; names the field.
        OSError: no space or no permission; finished shards are kept.
    """
    folder = features_folder(config.data.features)
    _check(config)
    device = pick_device(config.device, config.part)
    config = resolve_training(config, device)
    manifest = Manifest.open(config.data.train, marks=config.data.marks, allow_gaps=config.data.allow_gaps)
    reader = ShardReader(manifest, config.data.image_size)
    wanted = _settings(config)
    jobs = missing_files(folder, manifest, wanted, partial(_stamp, manifest, config.storage), config.part, config.parts)
    if not jobs:
        return 0
    kinds = {job.kind for job in jobs}
    precisions = {
        "text": f"CLIP in {config.encoders.dtype_of_texts}",
        "latents": f"generator in {config.generator.dtype}",
    }
    print(f"features on {named(device)}: {', '.join(precisions[kind] for kind in sorted(kinds))}", flush=True)
    encoders = _encoders(config, kinds, device)
    wanted = _settings(config)  # again: a model that was only now downloaded has a known commit from here on
    with progress("features", sum(len(job.samples) for job in jobs)) as advance:
        for kind, path, stamp, samples in jobs:
            keys, marks, features = [], [], []
            for start in range(0, len(samples), config.batch):
                batch = list(_read(reader, kind, samples[start : start + config.batch]))
                keys += [key for key, _, _ in batch]
                marks += [mark for _, mark, _ in batch]
                if batch:
                    encoded = encoders[kind]([content for _, _, content in batch])
                    features.append(encoded.cpu().numpy().astype(config.storage))
                advance(min(config.batch, len(samples) - start))
            stored = np.concatenate(features) if features else np.zeros((0, 1), config.storage)
            write_features(path, wanted[kind], stamp, keys, marks, stored)
    return len(jobs)


def _check(config: FeaturesConfig) -> None:
    check_part(config.part, config.parts)
    if not (config.text or config.latents):
        raise ValueError("text, latents: both are false, so there is nothing to cache; set one to true")
    if config.latents and not issubclass(require_generator(config.generator.name), StableDiffusion):
        raise ValueError(f"latents: generator {config.generator.name!r} cannot use them; set --latents false")


def _settings(config: FeaturesConfig) -> dict[str, dict]:
    """For each kind of feature (text, latents), the settings that decide its values."""
    settings = {}
    if config.text:
        settings["text"] = text_settings(config.encoders)
    if config.latents:
        settings["latents"] = latent_settings(config.generator, config.data.image_size)
    return settings


def _stamp(manifest: Manifest, storage: str, shard: str) -> str:
    """A string that changes whenever a file changes from which the shard's features are computed."""
    return json.dumps([storage, *manifest.stamps(shard)])


def _read(reader: ShardReader, kind: str, samples: Sequence[int]) -> Iterator[tuple[str, int, object]]:
    """Key, mark and content to encode. Unreadable samples are skipped: training replaces them by other samples."""
    for number in samples:
        try:
            if kind == "text":  # no picture is read or decoded
                captions = reader.captions(number)
                yield reader.manifest.key(number), caption_mark(*captions), captions
            else:
                sample = reader.read(number)
                yield sample.key, picture_mark(reader.stored("picture", number)), sample.picture_HWC
        except BadSample:
            continue


def _encoders(config: FeaturesConfig, kinds: set[str], device: torch.device) -> dict[str, Callable]:
    """For each requested kind, a function from pairs of captions or pictures [H, W, C] to their features."""
    encoders, functions = config.encoders, {}
    if "text" in kinds:
        clip = FrozenCLIP.load(encoders.clip, encoders.clip_pretrained, encoders.dtype_of_texts).to(device)
        functions["text"] = lambda pairs: clip.encode_text([c for pair in pairs for c in pair]).unflatten(0, (-1, 2))
    if "latents" in kinds:
        generator = load_generator(config.generator, device)
        functions["latents"] = lambda pictures: generator.source_latents(
            torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        )
    return functions


def main() -> None:
    config = parse_command(FeaturesConfig)
    with errors_in_one_line("cache_features.py"):
        print(f"{cache_features(config)} files written to {config.data.features}")


if __name__ == "__main__":
    main()
