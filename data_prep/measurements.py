"""The measurements that filter.py needs of a shard's samples: made once from the tar and stored beside it.

They do not depend on the rules. Changing a rule then costs seconds, not another pass over the pictures. The file is
`{shard}.measured.safetensors`.

Shape letters: S samples of a shard, in its tar's order.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from perceptual_hash import SIDE, grey, perceptual_hashes
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from regionedit.data.index import PICTURES, index_tar
from regionedit.files import write_atomic
from regionedit.images import MAX_PIXELS, upright_rgb

LAYOUT = "regionedit-measured-1"
FLAWS = ("", "unpaired", "unreadable", "caption_not_utf8", "caption_empty")
"""What makes a sample unusable, whatever the rules."""
CHANGED = "changed while it was read; filter again when it is complete"


class ShardChanged(ValueError):
    """The tar changed while it was read."""


@dataclass(frozen=True)
class Measurements:
    """The measurements of one shard.

    Args:
        keys: bytes [S].
        flaws: uint8 [S], indices into FLAWS.
        sizes: int32 [S, 2], width and height; 0 where unreadable.
        sha256: uint8 [S, 32], hashes of the pictures' bytes.
        hashes: uint64 [S], perceptual hashes.
        has_hash: bool [S]; false where unreadable or flat.
        columns: float32 [S, columns] from the samples' .json, NaN where there is none.
        letters: uint8, the bytes of all captions, concatenated.
        ends: int64 [S], where each caption ends in `letters`.
    """

    keys: np.ndarray
    flaws: np.ndarray
    sizes: np.ndarray
    sha256: np.ndarray
    hashes: np.ndarray
    has_hash: np.ndarray
    columns: np.ndarray
    letters: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def captions(self) -> list[str]:
        """The captions as text; bytes that are not UTF-8 are replaced, and such samples are flawed anyway."""
        everything, starts = self.letters.tobytes(), [0, *self.ends.tolist()]
        return [everything[a:b].decode(errors="replace").strip() for a, b in zip(starts, starts[1:], strict=False)]

    def names(self) -> list[str]:
        """The keys as text, as `index_tar` returns them."""
        return [key.decode(errors="surrogateescape") for key in self.keys.tolist()]

    def with_captions(self, written: Mapping[str, str]) -> Measurements:
        """A copy with other captions for some keys; flaws of the captions that they replace are cleared."""
        if not written:
            return self
        flaws, encoded = self.flaws.copy(), []
        for place, (key, caption) in enumerate(zip(self.names(), self.captions(), strict=True)):
            if key in written and FLAWS[flaws[place]].startswith("caption"):
                flaws[place] = 0
            encoded.append(written.get(key, caption).encode())
        ends = np.cumsum([len(caption) for caption in encoded], dtype=np.int64)
        return replace(self, flaws=flaws, letters=np.frombuffer(b"".join(encoded), np.uint8), ends=ends)


def measure(folder: Path, shard: str, columns: Sequence[str]) -> str:
    """Measure a shard, unless the stored measurements are up to date; returns the digest of its measurements.

    Raises:
        ValueError: the tar is missing, truncated, or has a name twice; or it changed while it was read.
        OSError: no space; nothing is left behind.
    """
    path, tar = _path(folder, shard), folder / f"{shard}.tar"
    for _ in range(2):  # a second attempt, in case the tar was just being replaced
        stamp = _stamp(tar, columns)
        if digest := _kept_digest(path, stamp):
            return digest
        try:
            found = _read(tar, columns)
        except ShardChanged:
            continue
        if _stamp(tar, columns) == stamp:
            break
    else:
        raise ShardChanged(f"{tar}: {CHANGED}")
    tensors = {f.name: np.ascontiguousarray(getattr(found, f.name)) for f in fields(found)}
    tensors["keys"] = found.keys.view(np.uint8).reshape(len(found), -1 if len(found) else 1)
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name].tobytes())
    digest = total.hexdigest()
    write_atomic(path, save(tensors, {"layout": LAYOUT, "stamp": stamp, "digest": digest}))
    return digest


def load(folder: Path, shard: str) -> Measurements:
    """Read the measurements that `measure` stored."""
    with safe_open(_path(folder, shard), "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    letters = np.ascontiguousarray(tensors.pop("keys"))
    return Measurements(keys=letters.view(f"S{letters.shape[1]}")[:, 0], **tensors)


def open_sound(data: bytes) -> tuple[tuple[int, int], Image.Image]:
    """The original size, and the decoded picture; JPEGs are decoded at reduced size, which is faster.

    Raises:
        ValueError: not a picture that training could use.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        size = picture.size
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError("too large")
        picture.draft("L", (2 * SIDE, 2 * SIDE))
        picture.load()
        return size, picture if picture.mode in ("L", "RGB") else upright_rgb(picture)
    except Exception as error:  # decoders raise all kinds of errors on damaged files: OSError, SyntaxError, ...
        raise ValueError(str(error)) from None


def read_part(tar: Path, file: BinaryIO, place: tuple[int, int]) -> bytes:
    """Read one member of a tar that is open as `file`. Raises ShardChanged: the file has become shorter."""
    offset, length = place
    data = os.pread(file.fileno(), length, offset)
    if len(data) < length:
        raise ShardChanged(f"{tar}: {CHANGED}")
    return data


def _path(folder: Path, shard: str) -> Path:
    return folder / f"{shard}.measured.safetensors"


def _stamp(tar: Path, columns: Sequence[str]) -> str:
    """Stored measurements are up to date if they have this stamp."""
    try:
        found = tar.stat()
    except FileNotFoundError:
        raise ValueError(f"{tar}: missing; restore it") from None
    return json.dumps([found.st_size, found.st_mtime_ns, *columns])


def _kept_digest(path: Path, stamp: str) -> str | None:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        return None
    fits = metadata.get("layout") == LAYOUT and metadata.get("stamp") == stamp
    return metadata["digest"] if fits else None


def _read(tar: Path, columns: Sequence[str]) -> Measurements:
    members = index_tar(tar)
    count = len(members)
    flaws, sizes = np.zeros(count, np.uint8), np.zeros((count, 2), np.int32)
    sha256, grey_S = np.zeros((count, 32), np.uint8), np.zeros((count, SIDE, SIDE), np.uint8)
    values, captions = np.full((count, len(columns)), np.nan, np.float32), []
    with tar.open("rb") as file:
        for place, parts in enumerate(members.values()):
            pictures = [parts[suffix] for suffix in PICTURES if suffix in parts]
            caption = read_part(tar, file, parts["txt"]) if "txt" in parts else b""
            captions.append(caption)
            flaw = "unpaired" if len(pictures) != 1 or "txt" not in parts else _caption_flaw(caption)
            if len(pictures) == 1:
                data = read_part(tar, file, pictures[0])
                sha256[place] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
                try:
                    sizes[place], picture = open_sound(data)
                    grey_S[place] = grey(picture)
                except ValueError:
                    flaw = flaw if flaw == "unpaired" else "unreadable"
            if "json" in parts:
                values[place] = _numbers(read_part(tar, file, parts["json"]), columns)
            flaws[place] = FLAWS.index(flaw)
    hashes, detailed = perceptual_hashes(grey_S)
    return Measurements(
        keys=np.array([key.encode(errors="surrogateescape") for key in members], "S"),
        flaws=flaws,
        sizes=sizes,
        sha256=sha256,
        hashes=hashes,
        has_hash=detailed,
        columns=values,
        letters=np.frombuffer(b"".join(captions), np.uint8),
        ends=np.cumsum([len(caption) for caption in captions], dtype=np.int64),
    )


def _caption_flaw(caption: bytes) -> str:
    try:
        return "" if caption.decode().strip() else "caption_empty"
    except UnicodeDecodeError:
        return "caption_not_utf8"


def _numbers(data: bytes, columns: Sequence[str]) -> list[float]:
    """The columns of a sample's .json; NaN for values that are not numbers."""
    try:
        entry = json.loads(data)
    except ValueError:
        return [math.nan] * len(columns)
    found = [entry.get(name) if isinstance(entry, dict) else None for name in columns]
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in found]
