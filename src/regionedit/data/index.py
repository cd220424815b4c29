"""Indexing: finds the samples of a shard and its sidecars and the byte at which each part starts; checks every file.

A folder holds standard img2dataset shards `{shard}.tar` with `{key}.jpg|.png|...`, `{key}.txt` (caption) and any other
members. Each shard has a sidecar `{shard}.instructions.jsonl`: a header line `{"schema": 1, ...}`, then one line
`{"key", "instruction", "target_caption"}` for every key of the shard, in any order. A line may also hold a
`source_caption`, which replaces the one in the tar. A line `{"key", "dropped": "why"}` removes its sample, whatever the
tar holds of it. Optional sidecars: `{shard}.truth.tar` (`{key}.mask.png`, `{key}.objects.png`; validation only) and
`{shard}.proposals.tar` (`{key}.png|.jpg`, in a folder of their own). Samples that `{shard}.marks.jsonl` or
`{shard}.subset.jsonl` lists are left out (see marks.py), even if they are damaged.

Shape letters: S samples.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionedit.data.marks import mark_files, read_marks
from regionedit.data.tar_headers import tar_members

SCHEMA = 1  # of the instructions sidecar
PICTURES = ("jpg", "jpeg", "png", "webp")
PARTS = {  # part of a sample -> the file that holds it
    "picture": "{}.tar",
    "caption": "{}.tar",
    "instruction": "{}.instructions.jsonl",
    "mask": "{}.truth.tar",
    "objects": "{}.truth.tar",
    "proposal": "{}.proposals.tar",
}


@dataclass(frozen=True)
class ShardIndex:
    """The index of one shard.

    Args:
        keys: bytes [S], in the tar's order.
        columns: for each part, int64 [S, 2]: first byte and number of bytes in its file.
        digest: hash of keys, byte offsets and instructions.
    """

    keys: np.ndarray
    columns: dict[str, np.ndarray]
    digest: str


def check_part(part: int, parts: int) -> None:
    """Refuse a share of the shards that does not exist. Raises ValueError."""
    if not 0 <= part < parts:
        raise ValueError(f"part: {part} of {parts} parts; give a number from 0 to parts - 1")


def index_tar(path: Path | str) -> dict[str, dict[str, tuple[int, int]]]:
    """Members of a tar by key and suffix, each as (first byte, number of bytes), from its headers only.

    Args:
        path: a file, or the URL of one.

    Raises:
        ValueError: it is missing, not an uncompressed tar or truncated, or it holds a name twice.
    """
    members: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        for name, offset, length in tar_members(path):
            key, suffix = _split(name)
            parts = members.setdefault(key, {})
            if suffix in parts:
                raise ValueError(f"{path}: duplicate key: {name} is there twice; pack the shard again")
            parts[suffix] = (offset, length)
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; restore it") from None
    except tarfile.TarError as error:
        if not members and (isinstance(path, str) or path.stat().st_size):
            raise ValueError(f"{path}: not an uncompressed tar ({error}); pack the shard again") from None
        raise ValueError(f"{path}: truncated shard ({error}); copy or pack it again") from None
    return members


def index_instructions(path: Path) -> Iterator[tuple[str, int, int, bool]]:
    """(key, first byte, number of bytes, dropped) of each line of an instructions sidecar; checks each line.

    Raises:
        ValueError: it is missing, lacks a header of this schema, or has a line that is not an instruction.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; write the instructions of this shard") from None
    offset = 0
    for number, line in enumerate(content.splitlines(keepends=True)):
        try:
            entry = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}, line {number + 1}: not JSON; write the sidecar again") from None
        if number == 0:
            if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
                raise ValueError(f'{path}: the first line must be a header {{"schema": {SCHEMA}, ...}}')
        else:
            entry = entry if isinstance(entry, dict) else {}
            dropped = "dropped" in entry
            needed = ["key"] + (["dropped"] if dropped else ["instruction", "target_caption"])
            needed += ["source_caption"] * ("source_caption" in entry)
            if not all(isinstance(entry.get(name), str) and entry[name].strip() for name in needed):
                names = f"{', '.join(needed[:-1])} and {needed[-1]}"
                raise ValueError(f"{path}, line {number + 1}: needs {names}, none empty")
            yield entry["key"], offset, len(line), dropped
        offset += len(line)
    if offset == 0:
        raise ValueError(f"{path}: empty file; write the sidecar again")


def index_shard(shard: str, files: Mapping[str, Path | str], folder: Path, marks: bool = True) -> ShardIndex:
    """Join a shard with its sidecars.

    Args:
        files: the file that holds each of the parts to index, by the keys of PARTS; only the shard may be a URL.
        folder: of its sidecars.
        marks: leave out marked samples.

    Raises:
        ValueError: as `index_tar` and `index_instructions`; a key without picture or caption; a sidecar that does not
            match.
    """
    tar = files["picture"]
    members = index_tar(tar)
    left_out = _left_out(folder, shard, members) if marks else set()
    members = _without(members, left_out)
    sidecar = files["instruction"]
    lines: dict[str, tuple[int, int]] = {}
    dropped: set[str] = set()
    for key, offset, length, is_dropped in index_instructions(sidecar):
        if key in lines:
            raise ValueError(f"{sidecar}: duplicate key {key}; keep one line for each key")
        lines[key] = (offset, length)
        if is_dropped:
            dropped.add(key)
    lines = _without(lines, left_out)
    _match(sidecar, list(members), lines)

    keys = [key for key in members if key not in dropped]
    columns: dict[str, list[tuple[int, int]]] = {part: [] for part in files}
    for key in keys:
        entry = members[key]
        pictures = [suffix for suffix in entry if suffix in PICTURES]
        if len(pictures) != 1 or "txt" not in entry:
            what = "no picture" if not pictures else "no caption (.txt)" if len(pictures) == 1 else "two pictures"
            raise ValueError(f"{tar}: unpaired key {key}: {what}; pack the shard again")
        columns["picture"].append(entry[pictures[0]])
        columns["caption"].append(entry["txt"])

    columns["instruction"] = [lines[key] for key in keys]

    if "mask" in files:
        path = files["mask"]
        truth = _without(index_tar(path), left_out)
        _match(path, keys, truth, dropped)
        for part in ("mask", "objects"):
            columns[part] = [_only(path, key, truth[key], (f"{part}.png",)) for key in keys]
    if "proposal" in files:
        path = files["proposal"]
        stored = _without(index_tar(path), left_out)
        _match(path, keys, stored, dropped)
        columns["proposal"] = [_only(path, key, stored[key], PICTURES) for key in keys]

    arrays = {part: np.array(values, np.int64).reshape(-1, 2) for part, values in columns.items()}
    digest = hashlib.sha256(shard.encode())
    for key in keys:
        digest.update(key.encode() + b"\n")
    for part in ("picture", "caption"):
        digest.update(arrays[part].tobytes())
    digest.update(sidecar.read_bytes())
    return ShardIndex(np.array([key.encode() for key in keys], "S"), arrays, digest.hexdigest())


def _left_out(folder: Path, shard: str, members: dict) -> set[str]:
    """The marked keys; the shard must hold all of them."""
    marked = {key: path for path in mark_files(folder, shard) for key in read_marks(path)}
    if unknown := sorted(marked.keys() - members.keys()):
        raise ValueError(
            f"{marked[unknown[0]]}: does not match its shard: {len(unknown)} of its keys are not there ({unknown[0]}); "
            "mark this shard again"
        )
    return set(marked)


def _without(entries: dict, left_out: set[str]) -> dict:
    return {key: value for key, value in entries.items() if key not in left_out} if left_out else entries


def _match(path: Path, keys: list[str], entries: dict, dropped: set[str] = frozenset()) -> None:
    """Check that the sidecar at `path` holds all of these keys, and no others except dropped ones."""
    missing = [key for key in keys if key not in entries]
    unknown = set(entries).difference(keys, dropped) if len(entries) > len(keys) - len(missing) else set()
    if missing or unknown:
        example = f"{missing[0]} is not in it" if missing else f"its {min(unknown)} is not in the shard"
        raise ValueError(
            f"{path}: does not match its shard: {len(missing)} of {len(keys)} keys missing, {len(unknown)} unknown "
            f"({example}); write it again from this shard"
        )


def _only(path: Path, key: str, entries: dict[str, tuple[int, int]], suffixes: tuple[str, ...]) -> tuple[int, int]:
    places = [entries[suffix] for suffix in suffixes if suffix in entries]
    if len(places) != 1:
        raise ValueError(f"{path}: needs exactly one {key}.{'|'.join(suffixes)}; write the file again")
    return places[0]


def _split(name: str) -> tuple[str, str]:
    """Key and lower-case suffix; as in webdataset, the suffix starts at the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()
