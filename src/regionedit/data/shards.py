"""Reads samples by number: any sample of any shard with one read per part, decoded and resized.

webdataset can only stream a tar from its beginning, so the parts are read at the manifest's byte offsets.
Shape letters: H W pixels of the resized picture, C channels.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from regionedit.data.features import FeatureReader
from regionedit.data.manifest import Manifest
from regionedit.data.remote import read_range
from regionedit.images import upright_rgb

_OPEN_FILES = 64


class BadSample(Exception):
    """A sample cannot be read; `reason` is short and the same for all samples with the same fault."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Sample:
    """One decoded sample; pictures are uint8 [H, W, C] in 0..255. Parts that the shard does not hold are None.

    Args:
        mask_HW: coverage of the true region.
        objects_HW: 0 background, 1 the named object, 2 and up the other objects.
        operation: empty unless truth is read.
        text: cached embeddings of both captions, float32 [2, D].
        latent: cached latent of the picture, float32 [C, h, w].
        regions: searched regions and their costs, float32 [K, N + 3].
    """

    key: str
    picture_HWC: np.ndarray
    instruction: str
    source_caption: str
    target_caption: str
    operation: str = ""
    proposal_HWC: np.ndarray | None = None
    mask_HW: np.ndarray | None = None
    objects_HW: np.ndarray | None = None
    text: np.ndarray | None = None
    latent: np.ndarray | None = None
    regions: np.ndarray | None = None


class ShardReader:
    """Reads samples by their number in the manifest's order. Each process keeps a few files of its own open.

    Args:
        size: pictures are resized to this square.
        truth: also read the operation, and the true region if the manifest has it.
        features: folder of cached features, or None.
    """

    def __init__(self, manifest: Manifest, size: int, truth: bool = False, features: str | None = None):
        self.manifest, self.size, self.truth = manifest, size, truth
        self._features: FeatureReader | None = None
        if features is not None:  # stored proposals need no latents of the sources
            kinds = ("text", "latents", "regions") if manifest.proposals is None else ("text", "regions")
            self._features = FeatureReader(Path(features), kinds)
        self._ends = np.cumsum(manifest.sizes)
        self._files: OrderedDict[Path, int] = OrderedDict()

    def shard(self, sample: int) -> str:
        """Name of the shard that holds a sample."""
        return self.manifest.shards[int(np.searchsorted(self._ends, sample, side="right"))]

    def read(self, sample: int) -> Sample:
        """One sample.

        Raises:
            BadSample: its picture or caption cannot be used; another sample may replace it.
            ValueError: its shard is missing or has become shorter since it was indexed, or its cached features belong
                to other captions or another picture; the run must stop.
        """
        columns = self.manifest.columns
        stored = self.stored("picture", sample)
        picture = _picture(stored, self.size)
        line, caption = self._texts(sample)
        proposal = mask = objects = None
        if "proposal" in columns:
            proposal = _picture(self.stored("proposal", sample), self.size)
        if self.truth and "mask" in columns:
            mask = _map(self.stored("mask", sample), self.size, Image.Resampling.BILINEAR)
            objects = _map(self.stored("objects", sample), self.size, Image.Resampling.NEAREST)
        key, target = self.manifest.key(sample), line["target_caption"]
        text = latent = regions = None
        if self._features:
            regions = self._features.regions(self.shard(sample), key, caption, target)
            text = self._features.text(self.shard(sample), key, caption, target)
            latent = self._features.latent(self.shard(sample), key, stored)
        return Sample(
            key=key,
            picture_HWC=picture,
            instruction=line["instruction"],
            source_caption=caption,
            target_caption=target,
            operation=line.get("operation", "") if self.truth else "",
            proposal_HWC=proposal,
            mask_HW=mask,
            objects_HW=objects,
            text=text,
            latent=latent,
            regions=regions,
        )

    def captions(self, sample: int) -> tuple[str, str]:
        """Source and target caption of a sample; the picture is not read. Raises as `read`."""
        line, caption = self._texts(sample)
        return caption, line["target_caption"]

    def _texts(self, sample: int) -> tuple[dict, str]:
        """The line of the sidecar, and the source caption."""
        line = json.loads(self.stored("instruction", sample))
        return line, line.get("source_caption") or self._caption(sample)

    def _caption(self, sample: int) -> str:
        """The caption in the tar."""
        try:
            caption = self.stored("caption", sample).decode().strip()
        except UnicodeDecodeError:
            raise BadSample("caption is not UTF-8") from None
        if not caption:
            raise BadSample("empty caption")
        return caption

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def stored(self, part: str, sample: int) -> bytes:
        """One part of PARTS of a sample, as the bytes in its file. Raises ValueError as `read`."""
        path = self.manifest.path(part, self.shard(sample))
        offset, length = (int(v) for v in self.manifest.columns[part][sample])
        if isinstance(path, str):
            return read_range(path, offset, length)
        try:
            data = os.pread(self._open(path), length, offset)
        except FileNotFoundError:
            raise ValueError(f"{path}: missing shard, which existed when it was indexed; restore it") from None
        if len(data) < length:
            raise ValueError(f"{path}: truncated since it was indexed; copy or pack it again")
        return data

    def _open(self, path: Path) -> int:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) == _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[path] = os.open(path, os.O_RDONLY)
        return self._files[path]


class BadSamples:
    """Counts bad samples by (shard, reason) and stops the run if there are too many.

    Args:
        limit: share of an epoch's samples that may be bad, `data.max_bad_fraction`, rounded up to whole samples: one
            bad sample among a few hundred does not stop the run, unless the limit is 0.
        samples: number of samples in an epoch, on this rank.
    """

    def __init__(self, limit: float, samples: int):
        self.limit, self.samples = limit, samples
        self.counts: Counter[tuple[str, str]] = Counter()
        self._this_epoch = 0

    def new_epoch(self) -> None:
        """Start a new epoch for the limit; `counts` continues."""
        self._this_epoch = 0

    def add(self, bad: list[tuple[str, str]]) -> None:
        """Count (shard, reason) pairs. Raises ValueError: more than the limit; the message is the report."""
        self.counts.update(bad)
        self._this_epoch += len(bad)
        if self._this_epoch > math.ceil(self.limit * self.samples):
            raise ValueError(
                f"data.max_bad_fraction: {self._this_epoch} of {self.samples} samples are bad, more than "
                f"{self.limit:g} of them ({self.report()}); repair these shards or raise the limit"
            )

    def report(self, most: int = 10) -> str:
        """The most frequent (shard, reason) pairs in one line, or "no bad samples"."""
        lines = [f"{shard}.tar: {reason} x{count}" for (shard, reason), count in self.counts.most_common(most)]
        rest = len(self.counts) - len(lines)
        return "; ".join(lines + [f"and {rest} more"] * (rest > 0)) or "no bad samples"


def _picture(data: bytes, size: int) -> np.ndarray:
    """uint8 [size, size, 3]. Of a JPEG at least four times as large, only 1/2, 1/4 or 1/8 of the size is decoded."""
    if not data:
        raise BadSample("empty picture")
    try:
        picture = Image.open(io.BytesIO(data))
        picture.draft(None, (2 * size, 2 * size))  # only JPEGs; no smaller than this
        picture = upright_rgb(picture)
    except UnidentifiedImageError:
        raise BadSample("not a picture") from None
    except Image.DecompressionBombError:
        raise BadSample("picture too large") from None
    except Exception as error:  # decoders raise many kinds: OSError, SyntaxError, ...
        raise BadSample("truncated picture" if "truncated" in str(error) else "damaged picture") from None
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(picture)


def _map(data: bytes, size: int, resampling: Image.Resampling) -> np.ndarray:
    """uint8 [size, size] of a one-channel PNG."""
    try:
        picture = Image.open(io.BytesIO(data)).convert("L")
    except Exception:
        raise BadSample("damaged truth") from None
    return np.asarray(picture if picture.size == (size, size) else picture.resize((size, size), resampling))
