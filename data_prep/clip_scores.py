"""CLIP scores of each sample, computed once per shard and model and stored in `{shard}.clip_scores.safetensors`.

There are two cosines: between caption and picture, and between caption and target caption. The picture is stretched to
CLIP's square input, as in training. Shape letters: S samples of a shard, B samples of a batch, D CLIP's width.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from filter_config import FilterConfig
from measurements import CHANGED, Measurements, ShardChanged, read_part
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sidecars import read_instructions

from regionedit.data.index import PICTURES, index_tar
from regionedit.device import named, pick_device, pick_dtype
from regionedit.encoders import FrozenCLIP
from regionedit.files import write_atomic
from regionedit.images import to_tensor, upright_rgb
from regionedit.provenance import identify

SCORES = ("text_image", "text_text")


class ClipScores:
    """Scores shards with the CLIP of a configuration, which is loaded when the first shard needs it.

    Raises:
        ValueError: the CLIP cannot be loaded, or there is no such device; names the field.
    """

    def __init__(self, config: FilterConfig):
        self.config = config
        self._device = pick_device(config.device)
        self._precision = pick_dtype(config.encoders.dtype, self._device)
        self._model = identify(config.encoders.clip, config.encoders.clip_pretrained) | {"precision": self._precision}

    def measure(self, folder: Path, shard: str, digest: str, found: Measurements) -> dict[str, np.ndarray]:
        """The cosines named in SCORES, float32 [S] each; NaN where a sample is flawed or has no target caption yet.

        Args:
            digest: hash of the shard's measurements, which changes with the tar.
            found: the shard's measurements, with the captions that training reads.

        Raises:
            ShardChanged: the tar has changed since it was measured.
        """
        written = read_instructions(folder, shard).entries
        keys, captions = found.names(), found.captions()
        targets = [written.get(key, {}).get("target_caption") for key in keys]
        decides = json.dumps([self._model, digest, captions, targets], sort_keys=True)
        stamp = hashlib.sha256(decides.encode()).hexdigest()
        path = folder / f"{shard}.clip_scores.safetensors"
        if (kept := _kept(path, stamp)) is not None:
            return kept
        scores = {name: np.full(len(found), np.nan, np.float32) for name in SCORES}
        tar = folder / f"{shard}.tar"
        members = index_tar(tar)
        if list(members) != keys:
            raise ShardChanged(f"{tar}: {CHANGED}")
        sound = np.flatnonzero(found.flaws == 0).tolist()
        with tar.open("rb") as file:
            for start in range(0, len(sound), self.config.batch):
                places = sound[start : start + self.config.batch]
                pictures = [self._picture(tar, file, members[keys[place]]) for place in places]
                texts_BD = self._texts([captions[place] for place in places])
                images_BD = F.normalize(self.clip.encode_image(to_tensor(pictures)).global_BD, dim=1)
                scores["text_image"][places] = (texts_BD * images_BD).sum(1).cpu().numpy()
                aimed = [i for i, place in enumerate(places) if targets[place]]
                if aimed:
                    targets_BD = self._texts([targets[places[i]] for i in aimed])
                    scores["text_text"][[places[i] for i in aimed]] = (
                        (texts_BD[aimed] * targets_BD).sum(1).cpu().numpy()
                    )
        write_atomic(path, save(scores, {"stamp": stamp}))
        return scores

    @cached_property
    def clip(self) -> FrozenCLIP:
        encoders = self.config.encoders
        loaded = FrozenCLIP.load(encoders.clip, encoders.clip_pretrained, self._precision)
        print(f"CLIP scores on {named(self._device)} in {self._precision}", flush=True)
        return loaded.to(self._device)

    def _texts(self, texts: list[str]) -> torch.Tensor:
        return F.normalize(self.clip.encode_text(texts), dim=1)

    def _picture(self, tar: Path, file: BinaryIO, parts: dict[str, tuple[int, int]]) -> Image.Image:
        place = next(parts[suffix] for suffix in PICTURES if suffix in parts)
        picture = upright_rgb(Image.open(io.BytesIO(read_part(tar, file, place))))
        return picture.resize((self.clip.image_size,) * 2, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _kept(path: Path, stamp: str) -> dict[str, np.ndarray] | None:
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("stamp") == stamp:
                return {name: file.get_tensor(name) for name in SCORES}
    except (FileNotFoundError, SafetensorError):
        pass
    return None
