"""The manifest: what shards hold (see index.py for the files), indexed once and cached.

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

from regionedit.data.index import PARTS, ShardIndex, index_shard
from regionedit.data.marks import mark_files
from regionedit.data.sources import Source, cache_folder, open_sources
from regionedit.files import write_atomic

log = logging.getLogger(__name__)

LAYOUT = "regionedit-manifest-1"  # of the cached file
_MANY = 64  # from this many shards on, several processes index


@dataclass(frozen=True)
class Manifest:
    """All samples of some shards, and where each part of them is stored.

    Args:
        sources: the folders or URLs of the shards.
        proposals: folder of the stored proposals, or None.
        shards: their names without suffix, in order; of several sources `{name of the folder}/{shard}`.
        sizes: samples of each shard, int64.
        keys: bytes [S].
        columns: for each part of PARTS that exists, int64 [S, 2]: first byte and number of bytes in its file.
        identity: hash of everything that determines which samples exist and their keys; it does not depend on the
            folder's path or on when it was written.
    """

    sources: tuple[Source, ...]
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
        cls,
        train: str | Path | Sequence[str],
        truth: bool = False,
        proposals: str | Path | None = None,
        marks: bool = True,
        allow_gaps: bool = False,
    ) -> Manifest:
        """Load the cached manifest if it is still valid, otherwise index every shard and cache the result.

        The cached file of one whole folder is beside its shards (with proposals: beside those, under the folder's name,
        because the same proposals may serve a folder with only some of the shards), or under ~/.cache/regionedit if
        that folder is not writable. That of several folders, of a pattern or of a URL is always there.

        Args:
            train: a folder, a URL or a pattern, or several of them; see sources.py.
            truth: index the truth sidecars, if there are any.
            marks: leave out marked samples.
            allow_gaps: only warn of missing shards.

        Raises:
            ValueError: no shards; a shard that is missing or truncated, or has duplicate or unpaired keys; a sidecar
                that does not match. One line that names the file and the fix.
        """
        entries = [str(train)] if isinstance(train, str | Path) else [str(entry) for entry in train]
        proposals = Path(proposals) if proposals is not None else None
        with _one_at_a_time(f"{entries} {proposals}"):
            sources = open_sources(entries, allow_gaps)
            local = [s for s in sources if s.stamps is None]
            with_truth = truth and any((s.folder / f"{n}.truth.tar").exists() for s in local for n in s.shards)
            parts = ["picture", "caption", "instruction"]
            parts += ["mask", "objects"] * with_truth + ["proposal"] * (proposals is not None)
            shards = tuple(n if len(sources) == 1 else f"{s.name}/{n}" for s in sources for n in s.shards)
            empty = np.empty(0, np.int64)
            manifest = cls(sources, proposals, shards, empty, np.empty(0, "S1"), {}, "")
            stamps = [stamp for shard in shards for stamp in manifest.stamps(shard, parts, marks)]
            places = _places(entries, sources, proposals, "manifest.truth" if with_truth else "manifest")
            for cached in places:
                loaded = _load(cached, manifest, stamps, allow_gaps)
                if loaded is not None:
                    return loaded
            manifest = _build(manifest, parts, marks)
            _store(manifest, stamps, places)
            return manifest

    @property
    def name(self) -> str:
        """The folders and URLs, for messages."""
        return ", ".join(source.place for source in self.sources)

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

    def source(self, shard: str) -> tuple[Source, str]:
        """The source of a shard, and its name there."""
        if len(self.sources) == 1:
            return self.sources[0], shard
        folder, _, name = shard.partition("/")
        return next(source for source in self.sources if source.name == folder), name

    def path(self, part: str, shard: str) -> Path | str:
        """The file that holds a part of a shard's samples; a URL if it is not on this machine."""
        source, name = self.source(shard)
        if part in ("picture", "caption"):
            return source.tar(name)
        if part == "proposal":
            return self.proposals / PARTS[part].format(shard)
        return source.folder / PARTS[part].format(name)

    def stamps(self, shard: str, parts: Sequence[str] = ("picture", "instruction"), marks: bool = True) -> list[list]:
        """[name, bytes, version] of every file of a shard's parts and marks; they change when a file changes.

        Raises:
            ValueError: a file is missing.
        """
        source, name = self.source(shard)
        stamps = []
        read = dict.fromkeys(self.path(part, shard) for part in parts)
        for path in [*read, *(mark_files(source.folder, name) if marks else ())]:
            if isinstance(path, str):
                stamps.append([f"{name}.tar", *source.stamps[name]])
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                raise ValueError(f"{path}: missing; write it for this shard") from None
            stamps.append([path.name, status.st_size, status.st_mtime_ns])
        return stamps


def _build(manifest: Manifest, parts: Sequence[str], marks: bool) -> Manifest:
    """The manifest with its samples, from the headers of all shards."""
    shards = manifest.shards
    found = [manifest.source(shard) for shard in shards]
    jobs = (
        [name for _, name in found],
        [{part: manifest.path(part, shard) for part in parts} for shard in shards],
        [source.folder for source, _ in found],
        [marks] * len(shards),
    )
    if len(shards) < _MANY:
        indexes = [index_shard(*job) for job in zip(*jobs, strict=True)]
    else:
        with ProcessPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            running = pool.map(index_shard, *jobs, chunksize=4)
            indexes = list(track(running, f"indexing {manifest.name}", total=len(shards), transient=True))
    done = 0
    for source in manifest.sources:
        _refuse_duplicates(source, indexes[done : done + len(source.shards)])
        done += len(source.shards)
    return replace(
        manifest,
        sizes=np.array([len(index.keys) for index in indexes], np.int64),
        keys=np.concatenate([index.keys for index in indexes]),
        columns={part: np.concatenate([index.columns[part] for index in indexes]) for part in parts},
        identity=hashlib.sha256("".join(index.digest for index in indexes).encode()).hexdigest(),
    )


def _refuse_duplicates(source: Source, indexes: Sequence[ShardIndex]) -> None:
    """Keys differ within a folder; those of two crawls may coincide."""
    keys = np.concatenate([index.keys for index in indexes])
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(twice):
        ends = np.cumsum([len(index.keys) for index in indexes])
        one, other = (source.shards[int(np.searchsorted(ends, order[twice[0] + i], side="right"))] for i in (0, 1))
        key = keys[order[twice[0]]].decode()
        raise ValueError(
            f"{source.place}: duplicate key {key} in shards {one} and {other}; keys must differ across shards"
        )


def _places(entries: Sequence[str], sources: Sequence[Source], proposals: Path | None, name: str) -> list[Path]:
    """Where the cached manifest may be."""
    folder = sources[0].folder
    if len(sources) > 1 or sources[0].stamps is not None or Path(entries[0]) != folder:
        return [_cache_path(f"{entries} {proposals} {name}")]
    file = f"{name}.safetensors"
    beside = folder / file if proposals is None else proposals / f"{folder.name}.{file}"
    return [beside, _cache_path(str(beside.resolve()))]


def _cache_path(name: str) -> Path:
    return cache_folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.safetensors"


def _store(manifest: Manifest, stamps: list, places: Sequence[Path]) -> None:
    info = {"shards": manifest.shards, "identity": manifest.identity, "stamps": stamps}
    columns = {name: np.ascontiguousarray(column) for name, column in manifest.columns.items()}
    letters = manifest.keys.view(np.uint8).reshape(len(manifest), manifest.keys.itemsize)
    data = save(
        {**columns, "keys": letters, "sizes": manifest.sizes}, metadata={"layout": LAYOUT, "info": json.dumps(info)}
    )
    for place in places:
        try:
            write_atomic(place, data)
            return
        except OSError as error:
            refused = error
    log.warning("%s cannot be cached and will be made again: %s", places[0].name, refused)


@contextmanager
def _one_at_a_time(what: str) -> Iterator[None]:
    """Let the ranks of a machine index one after the other: all but the first then find the cached manifest."""
    locks = Path(tempfile.gettempdir()) / f"regionedit-locks-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    with open(locks / _cache_path(what).stem, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(cached: Path, manifest: Manifest, stamps: list, allow_gaps: bool) -> Manifest | None:
    """The cached manifest, or None if there is none or the files have changed since.

    Raises:
        ValueError: it lists a shard that is missing now.
    """
    try:
        with safe_open(cached, "numpy") as file:
            metadata = file.metadata() or {}
            info = json.loads(metadata["info"]) if metadata.get("layout") == LAYOUT else {}
            gone = [shard for shard in info.get("shards", ()) if shard not in manifest.shards]
            if gone and not allow_gaps:
                raise ValueError(
                    f"{manifest.name}: {gone[0]}.tar: missing shard ({len(gone)} of {len(info['shards'])} are gone); "
                    f"restore it, or delete {cached} to continue without"
                )
            if info.get("stamps") != stamps:
                return None
            columns = {name: file.get_tensor(name) for name in file.keys()}
    except (FileNotFoundError, SafetensorError):
        return None
    letters = columns.pop("keys")
    return replace(
        manifest,
        sizes=columns.pop("sizes"),
        keys=letters.view(f"S{letters.shape[1]}")[:, 0],
        columns=columns,
        identity=info["identity"],
    )
