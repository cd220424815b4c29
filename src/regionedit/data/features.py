"""Cached features of a shard: outputs of frozen networks, which training then need not compute.

`{shard}.text_features.safetensors` holds CLIP's pooled embeddings of both captions, `{shard}.latents.safetensors` the
source's latent in the generator's autoencoder. Both are optional; data_prep/cache_features.py writes them.
`{shard}.regions.safetensors` holds searched regions, from data_prep/search_regions.py. The metadata of a file records
what it was made with, and each row has a hash of its captions or picture. Features that do not match the run are an
error.

Shape letters: S samples of a shard, D CLIP's width, C h w channels and size of a latent, K candidates, N patches.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from regionedit.config import generator_of_search
from regionedit.config.renamed import under_present_names
from regionedit.files import remove_leftovers, write_atomic
from regionedit.provenance import identify

if TYPE_CHECKING:
    from regionedit.config import EncodersConfig, GeneratorConfig, TrainConfig
    from regionedit.data.manifest import Manifest

FILES = {
    "text": "{}.text_features.safetensors",
    "latents": "{}.latents.safetensors",
    "regions": "{}.regions.safetensors",
}
PROGRAMS = {"text": "cache_features.py", "latents": "cache_features.py", "regions": "search_regions.py"}
"""What writes each kind."""
RESIZE = "square, bicubic, reducing_gap 3"  # of data/shards.py
_OPEN_FILES = 32


def text_settings(encoders: EncodersConfig) -> dict[str, Any]:
    """All settings that affect a caption's embedding, by field."""
    return {
        "encoders.clip": identify(encoders.clip, encoders.clip_pretrained),
        "encoders.dtype": encoders.dtype_of_texts,
    }


def latent_settings(generator: GeneratorConfig, image_size: int) -> dict[str, Any]:
    """All settings that affect a source's latent, by field."""
    return {
        "generator.path": identify(generator.path, generator.revision) | {"variant": generator.variant},
        "generator.dtype": generator.dtype,
        "generator.size": generator.size,
        "data.image_size": image_size,
        "resize": RESIZE,
    }


def region_settings(config: TrainConfig) -> dict[str, Any]:
    """All settings that affect which regions a search finds and their costs, by field."""
    generator = asdict(generator_of_search(config)) | {"compile": None}
    return {
        **{f"generator.{name}": value for name, value in generator.items() if value is not None},
        "generator.path": identify(config.generator.path, config.generator.revision),
        "encoders.clip": identify(config.encoders.clip, config.encoders.clip_pretrained),
        "search.clusters": config.search.clusters,
        "search.boxes": config.search.boxes,
        "data.image_size": config.data.image_size,
        "resize": RESIZE,
    }


def caption_mark(source: str, target: str) -> int:
    """A 64-bit hash of a pair of captions."""
    return int.from_bytes(hashlib.blake2b(f"{source}\0{target}".encode(), digest_size=8).digest(), "big")


def picture_mark(data: bytes) -> int:
    """A 32-bit checksum of a picture file."""
    return zlib.crc32(data)


def write_features(
    path: Path, settings: Mapping[str, Any], stamp: str, keys: Sequence[str], marks: Sequence[int], features: np.ndarray
) -> None:
    """Write one file of features completely or not at all.

    Args:
        settings: `text_settings`, `latent_settings` or `region_settings`.
        stamp: lets the writer see whether its earlier work was made from the same files.
        keys: of the samples [S].
        marks: of their captions or pictures [S].
        features: source and target captions [S, 2, D], latents [S, C, h, w], or searched regions with their costs
            [S, K, N + 3]; float32 or float16.

    Raises:
        OSError: no room, no permission; nothing is left behind.
    """
    letters = np.array([key.encode() for key in keys], "S")
    stored = {
        "features": np.ascontiguousarray(features),
        "keys": letters.view(np.uint8).reshape(len(letters), -1 if len(letters) else 1),
        "marks": np.array(marks, np.uint64),
    }
    write_atomic(path, save(stored, {"settings": json.dumps(settings, sort_keys=True), "stamp": stamp}))


class Job(NamedTuple):
    """A file of features to write: its kind (key of FILES), path and stamp, and its shard's samples by number."""

    kind: str
    path: Path
    stamp: str
    samples: Sequence[int]


def features_folder(folder: str | None) -> Path:
    """`data.features` for a program that writes it. Raises ValueError: it is not set."""
    if folder is None:
        raise ValueError("data.features: not set; give the folder to write to, e.g. --data.features data/features")
    return Path(folder)


def missing_files(
    folder: Path,
    manifest: Manifest,
    settings: Mapping[str, Mapping[str, Any]],
    stamp_of: Callable[[str], str],
    part: int,
    parts: int,
) -> list[Job]:
    """The files that are missing or outdated in share `part` of `parts` of the shards.

    Args:
        settings: kind -> the settings that decide its values.
        stamp_of: a shard's stamp, see `write_features`.
    """
    remove_leftovers(folder)
    jobs = [
        Job(kind, folder / FILES[kind].format(shard), stamp_of(shard), samples)
        for shard, samples in manifest.samples()[part::parts]
        for kind in settings
    ]
    return [job for job in jobs if made_with(job.path) != (settings[job.kind], job.stamp)]


def made_with(path: Path) -> tuple[dict[str, Any], str] | None:
    """Settings (under their present names) and stamp of a file of features; None if it is missing or unreadable."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        return under_present_names(json.loads(metadata["settings"])), metadata["stamp"]
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        return None


def require_features(
    folder: Path, manifest: Manifest, settings: Mapping[str, Mapping[str, Any]], some: Sequence[str] = ()
) -> None:
    """Reject features that were made with other settings than this run's, before any model is loaded.

    Args:
        settings: the settings of this run, for those kinds of FILES that it uses.
        some: kinds of which some of the shards are enough.

    Raises:
        ValueError: no features, shards without features, or another model, revision, precision or size; names the
            fields.
    """
    present = {kind: [s for s in manifest.shards if (folder / FILES[kind].format(s)).is_file()] for kind in settings}
    needed = ["regions"] if "regions" in settings else [kind for kind in settings if present[kind]]
    if not needed or not all(present[kind] for kind in needed):
        kinds = needed or settings
        programs = " or ".join(sorted({PROGRAMS[kind] for kind in kinds}))
        raise ValueError(f"data.features: {folder} holds no {' or '.join(kinds)} of {manifest.name}; run {programs}")
    for kind, shards in present.items():
        if shards and len(shards) < len(manifest.shards) and kind not in some:
            missing = next(shard for shard in manifest.shards if shard not in shards)
            raise ValueError(
                f"data.features: {folder / FILES[kind].format(missing)} is missing, as are those of "
                f"{len(manifest.shards) - len(shards) - 1} other shards; run {PROGRAMS[kind]} again"
            )
        for shard in shards:
            path = folder / FILES[kind].format(shard)
            made = made_with(path)
            if made is None:
                raise ValueError(f"data.features: {path} cannot be read; delete it and run {PROGRAMS[kind]} again")
            for name, value in settings[kind].items():
                if made[0].get(name) != value:
                    raise ValueError(
                        f"data.features: {path} was made with {name} {_short(made[0].get(name))}, this run has "
                        f"{_short(value)}; run {PROGRAMS[kind]} with this configuration, or give another folder"
                    )


class FeatureReader:
    """Reads rows of cached features of some kinds by shard and key. Each process keeps a few files of its own open."""

    def __init__(self, folder: Path, kinds: Sequence[str] = tuple(FILES)):
        self.folder, self.kinds = folder, kinds
        self._files: OrderedDict[Path, tuple[Any, dict[bytes, int], np.ndarray] | None] = OrderedDict()

    def text(self, shard: str, key: str, source: str, target: str) -> np.ndarray | None:
        """Embeddings of both captions, float32 [2, D], or None if text is not cached.

        Raises:
            ValueError: the sample is missing, or its captions have changed.
        """
        return self._row("text", shard, key, caption_mark(source, target), "pair of captions")

    def latent(self, shard: str, key: str, picture: bytes) -> np.ndarray | None:
        """The source's latent, float32 [C, h, w], or None if latents are not cached. Raises as `text`."""
        return self._row("latents", shard, key, picture_mark(picture), "picture")

    def regions(self, shard: str, key: str, source: str, target: str) -> np.ndarray | None:
        """Searched regions and their costs, float32 [K, N + 3], or None if they are not stored. Raises as `text`."""
        return self._row("regions", shard, key, caption_mark(source, target), "pair of captions")

    def _row(self, kind: str, shard: str, key: str, mark: int, what: str) -> np.ndarray | None:
        path = self.folder / FILES[kind].format(shard)
        if kind not in self.kinds or (opened := self._open(path)) is None:
            return None
        file, places, marks = opened
        place = places.get(key.encode())
        if place is None or int(marks[place]) != mark:
            changed = f"does not hold {key}" if place is None else f"was made from another {what} of {key}"
            raise ValueError(f"data.features: {path} {changed}; run {PROGRAMS[kind]} again")
        return file.get_slice("features")[place].astype(np.float32)

    def _open(self, path: Path) -> tuple[Any, dict[bytes, int], np.ndarray] | None:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) == _OPEN_FILES:
            self._files.popitem(last=False)
        opened = None
        if path.is_file():
            file = safe_open(path, "numpy")
            letters = file.get_tensor("keys")
            keys = np.ascontiguousarray(letters).view(f"S{letters.shape[1]}")[:, 0].tolist()
            opened = file, {key: place for place, key in enumerate(keys)}, file.get_tensor("marks")
        self._files[path] = opened
        return opened


def _short(value: Any) -> str:
    """A setting in a few words; for a model, its name and version."""
    if not isinstance(value, dict):
        return repr(value)
    version = [str(value[name])[:12] for name in ("revision", "variant", "sha256", "commit") if value.get(name)]
    return f"{value.get('name')}" + (f" ({', '.join(version)})" if version else "")
