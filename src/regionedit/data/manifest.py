"""The manifest: what a folder of shards holds (see index.py for the files), indexed once and cached.

Shape letters: S samples.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from regionedit.data.index import find_shards, index_shard, part_path
from regionedit.data.marks import mark_files
from regionedit.files import write_atomic

log = logging.getLogger(__name__)

LAYOUT = "regionedit-manifest-1"  # of the cached file
_MANY = 64  # from this many shards on, several processes index


@dataclass(frozen=True)
class Manifest:
    """All samples of a folder of shards, and where each part of them is stored.

    Args:
        proposals: folder of the stored proposals, or None.
        shards: their names without suffix, sorted.
        sizes: samples of each shard, int64.
        keys: bytes [S].
        columns: for each part of PARTS that exists, int64 [S, 2]: first byte and number of bytes in its file.
        identity: hash of everything that determines which samples exist and their keys; it does not depend on the
            folder's path or on when it was written.
    """

    folder: Path
    proposals: Path | None
    shards: tuple[str, ...]
    sizes: np.ndarray
    keys: np.ndarray
    columns: dict[str, np.ndarray]
    identity: str

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def open(
        cls, folder: str | Path, truth: bool = False, proposals: str | Path | None = None, marks: bool = True
    ) -> Manifest:
        """Load the cached manifest if it is still valid, otherwise index every shard and cache the result.

        The cached file is beside the shards (with proposals: beside those, under the folder's name, because the same
        proposals may serve a folder with only some of the shards), or under ~/.cache/regionedit if that folder is not
        writable.

        Args:
            truth: index the truth sidecars, if there are any.
            marks: leave out marked samples.

        Raises:
            ValueError: no shards; a shard that is missing or truncated, or has duplicate or unpaired keys; a sidecar
                that does not match. One line that names the file and the fix.
        """
        folder = Path(folder)
        proposals = Path(proposals) if proposals is not None else None
        shards = find_shards(folder)
        with_truth = truth and any((folder / f"{s}.truth.tar").exists() for s in shards)
        parts = ["picture", "caption", "instruction"]
        parts += ["mask", "objects"] * with_truth + ["proposal"] * (proposals is not None)
        name = "manifest.truth.safetensors" if with_truth else "manifest.safetensors"
        beside = folder / name if proposals is None else proposals / f"{folder.name}.{name}"
        stamps = _stamps(folder, proposals, shards, parts, marks)
        with _one_at_a_time(beside):
            for cached in (beside, _cache_path(beside)):
                manifest = _load(cached, folder, proposals, shards, stamps)
                if manifest is not None:
                    return manifest
            manifest = _build(folder, proposals, shards, parts, marks)
            _store(manifest, stamps, beside)
            return manifest

    def samples(self) -> list[tuple[str, range]]:
        """Every shard with the numbers of its samples."""
        ends = self.sizes.cumsum().tolist()
        return [
            (shard, range(end - n, end)) for shard, n, end in zip(self.shards, self.sizes.tolist(), ends, strict=True)
        ]

    def key(self, sample: int) -> str:
        return self.keys[sample].decode()

    def only(self, kept: np.ndarray, name: str) -> Manifest:
        """Some of the samples, in the same shards and order.

        Args:
            kept: bool [S].
            name: of the choice; a part of the new identity.
        """
        ends = self.sizes.cumsum()
        sizes = np.array([kept[end - n : end].sum() for n, end in zip(self.sizes, ends, strict=True)], np.int64)
        return replace(
            self,
            sizes=sizes,
            keys=self.keys[kept],
            columns={part: places[kept] for part, places in self.columns.items()},
            identity=hashlib.sha256(f"{self.identity} {name}".encode()).hexdigest(),
        )

    def path(self, part: str, shard: str) -> Path:
        """The file that holds a part of a shard's samples."""
        return part_path(self.folder, self.proposals, part, shard)


def _build(
    folder: Path, proposals: Path | None, shards: tuple[str, ...], parts: Sequence[str], marks: bool
) -> Manifest:
    count = len(shards)
    jobs = ([folder] * count, [proposals] * count, shards, [parts] * count, [marks] * count)
    if len(shards) < _MANY:
        indexes = [index_shard(*job) for job in zip(*jobs, strict=True)]
    else:
        with ProcessPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            running = pool.map(index_shard, *jobs, chunksize=4)
            indexes = list(track(running, f"indexing {folder}", total=len(shards), transient=True))
    keys = np.concatenate([index.keys for index in indexes])
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    sizes = np.array([len(index.keys) for index in indexes], np.int64)
    if len(twice):
        ends = np.cumsum(sizes)
        one, other = (shards[int(np.searchsorted(ends, order[twice[0] + i], side="right"))] for i in (0, 1))
        key = keys[order[twice[0]]].decode()
        raise ValueError(f"{folder}: duplicate key {key} in shards {one} and {other}; keys must differ across shards")
    return Manifest(
        folder=folder,
        proposals=proposals,
        shards=shards,
        sizes=sizes,
        keys=keys,
        columns={part: np.concatenate([index.columns[part] for index in indexes]) for part in parts},
        identity=hashlib.sha256("".join(index.digest for index in indexes).encode()).hexdigest(),
    )


def _stamps(folder: Path, proposals: Path | None, shards: tuple[str, ...], parts: Sequence[str], marks: bool) -> list:
    """[name, bytes, time] of every file of the manifest; a cached manifest is valid if they have not changed."""
    stamps = []
    for shard in shards:
        read = dict.fromkeys(part_path(folder, proposals, part, shard) for part in parts)
        for path in [*read, *(mark_files(folder, shard) if marks else ())]:
            try:
                status = path.stat()
            except FileNotFoundError:
                raise ValueError(f"{path}: missing; write it for this shard") from None
            stamps.append([path.name, status.st_size, status.st_mtime_ns])
    return stamps


def _cache_path(beside: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "regionedit" / f"{hashlib.sha256(str(beside.resolve()).encode()).hexdigest()[:24]}.safetensors"


def _store(manifest: Manifest, stamps: list, beside: Path) -> None:
    info = {"shards": manifest.shards, "identity": manifest.identity, "stamps": stamps}
    columns = {name: np.ascontiguousarray(column) for name, column in manifest.columns.items()}
    letters = manifest.keys.view(np.uint8).reshape(len(manifest), manifest.keys.itemsize)
    data = save(
        {**columns, "keys": letters, "sizes": manifest.sizes}, metadata={"layout": LAYOUT, "info": json.dumps(info)}
    )
    for place in (beside, _cache_path(beside)):
        try:
            write_atomic(place, data)
            return
        except OSError as error:
            refused = error
    log.warning("%s cannot be cached and will be made again: %s", beside.name, refused)


@contextmanager
def _one_at_a_time(beside: Path) -> Iterator[None]:
    """Let the ranks of a machine index one after the other: all but the first then find the cached manifest."""
    locks = Path(tempfile.gettempdir()) / f"regionedit-locks-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    with open(locks / _cache_path(beside).stem, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(cached: Path, folder: Path, proposals: Path | None, shards: tuple[str, ...], stamps: list) -> Manifest | None:
    """The cached manifest, or None if there is none or the files have changed since.

    Raises:
        ValueError: it lists a shard that is missing now.
    """
    try:
        with safe_open(cached, "numpy") as file:
            metadata = file.metadata() or {}
            info = json.loads(metadata["info"]) if metadata.get("layout") == LAYOUT else {}
            gone = [shard for shard in info.get("shards", ()) if shard not in shards]
            if gone:
                raise ValueError(
                    f"{folder / gone[0]}.tar: missing shard ({len(gone)} of {len(info['shards'])} are gone); restore "
                    f"it, or delete {cached} to continue without"
                )
            if info.get("stamps") != stamps:
                return None
            columns = {name: file.get_tensor(name) for name in file.keys()}
    except (FileNotFoundError, SafetensorError):
        return None
    letters = columns.pop("keys")
    return Manifest(
        folder=folder,
        proposals=proposals,
        shards=shards,
        sizes=columns.pop("sizes"),
        keys=letters.view(f"S{letters.shape[1]}")[:, 0],
        columns=columns,
        identity=info["identity"],
    )
