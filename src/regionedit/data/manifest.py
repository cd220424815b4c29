"""The manifest: what a folder of shards holds (see index.py for what it may hold), found once and kept.

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from regionedit.data.index import find_shards, index_shard, part_path
from regionedit.data.marks import mark_files
from regionedit.files import write_atomic

log = logging.getLogger(__name__)

LAYOUT = "regionedit-manifest-1"  # of the kept file
_MANY = 64  # shards from which on indexing is worth several processes


@dataclass(frozen=True)
class Manifest:
    """What is where.

    Args:
        folder: of the shards.
        proposals: folder of the stored proposals, or None.
        shards: their names without suffix, sorted.
        sizes: samples of each shard, int64.
        keys: bytes [S].
        columns: for each part of PARTS that is there, int64 [S, 2]: first byte and number of bytes in its file.
        identity: hash of everything that decides which samples there are and what they are called; it does not depend
            on where the folder lies or when it was written.
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
        """Load the kept manifest if it is still true, otherwise index every shard and keep the result.

        It is kept beside the shards (with proposals: beside those, under the folder's name, since proposals may serve
        a folder that holds some of the shards only), or under ~/.cache/regionedit where that folder
        cannot be written to.

        Args:
            folder: of the shards.
            truth: index the truth sidecars, where there are any.
            proposals: folder of stored proposals.
            marks: leave out the samples that are marked, where there are marks.

        Raises:
            ValueError: no shards; a shard missing, truncated, with duplicate or unpaired keys; a sidecar that does not
                match. One line that names the file and the fix.
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
        with _one_process(beside):
            for kept in (beside, _elsewhere(beside)):
                manifest = _load(kept, folder, proposals, shards, stamps)
                if manifest is not None:
                    return manifest
            manifest = _build(folder, proposals, shards, parts, marks)
            _keep(manifest, stamps, beside)
            return manifest

    def key(self, sample: int) -> str:
        return self.keys[sample].decode()

    def path(self, part: str, shard: str) -> Path:
        """The file in which a part of a shard's samples lies."""
        return part_path(self.folder, self.proposals, part, shard)


def _build(
    folder: Path, proposals: Path | None, shards: tuple[str, ...], parts: Sequence[str], marks: bool
) -> Manifest:
    count = len(shards)
    jobs = ([folder] * count, [proposals] * count, shards, [parts] * count, [marks] * count)
    if len(shards) < _MANY:
        found = [index_shard(*job) for job in zip(*jobs, strict=True)]
    else:
        with ProcessPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            running = pool.map(index_shard, *jobs, chunksize=4)
            found = list(track(running, f"indexing {folder}", total=len(shards), transient=True))
    keys = np.concatenate([index.keys for index in found])
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    sizes = np.array([len(index.keys) for index in found], np.int64)
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
        columns={part: np.concatenate([index.columns[part] for index in found]) for part in parts},
        identity=hashlib.sha256("".join(index.digest for index in found).encode()).hexdigest(),
    )


def _stamps(folder: Path, proposals: Path | None, shards: tuple[str, ...], parts: Sequence[str], marks: bool) -> list:
    """[name, bytes, time] of every file that the manifest speaks of; by it a kept manifest is believed."""
    stamps = []
    for shard in shards:
        read = dict.fromkeys(part_path(folder, proposals, part, shard) for part in parts)
        for path in [*read, *(mark_files(folder, shard) if marks else ())]:
            try:
                found = path.stat()
            except FileNotFoundError:
                raise ValueError(f"{path}: missing; write it for this shard") from None
            stamps.append([path.name, found.st_size, found.st_mtime_ns])
    return stamps


def _elsewhere(beside: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "regionedit" / f"{hashlib.sha256(str(beside.resolve()).encode()).hexdigest()[:24]}.safetensors"


def _keep(manifest: Manifest, stamps: list, beside: Path) -> None:
    info = {"shards": manifest.shards, "identity": manifest.identity, "stamps": stamps}
    columns = {name: np.ascontiguousarray(column) for name, column in manifest.columns.items()}
    letters = manifest.keys.view(np.uint8).reshape(len(manifest), manifest.keys.itemsize)
    data = save(
        {**columns, "keys": letters, "sizes": manifest.sizes}, metadata={"layout": LAYOUT, "info": json.dumps(info)}
    )
    for place in (beside, _elsewhere(beside)):
        try:
            write_atomic(place, data)
            return
        except OSError as error:
            refused = error
    log.warning("%s is not kept and will be made again: %s", beside.name, refused)


@contextmanager
def _one_process(beside: Path) -> Iterator[None]:
    """Let the ranks of a machine index in turn: all but the first then find it done."""
    locks = Path(tempfile.gettempdir()) / f"regionedit-locks-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    with open(locks / _elsewhere(beside).stem, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(kept: Path, folder: Path, proposals: Path | None, shards: tuple[str, ...], stamps: list) -> Manifest | None:
    """The kept manifest, or None where there is none or the files have changed since.

    Raises:
        ValueError: it lists a shard that is gone.
    """
    try:
        with safe_open(kept, "numpy") as file:
            metadata = file.metadata() or {}
            info = json.loads(metadata["info"]) if metadata.get("layout") == LAYOUT else {}
            gone = [shard for shard in info.get("shards", ()) if shard not in shards]
            if gone:
                raise ValueError(
                    f"{folder / gone[0]}.tar: missing shard ({len(gone)} of {len(info['shards'])} are gone); restore "
                    f"it, or delete {kept} to go on without"
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
