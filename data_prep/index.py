"""Index a folder of shards, for report.py: counts, sizes, hashes, operations, lengths, what is left out and why.

The hashes allow you to compare two copies of a data set. A file is hashed again only when it has changed. Broken shards
are listed with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from sidecars import read_instructions

from regionedit.data.index import PICTURES, index_tar
from regionedit.data.marks import mark_files, read_marks
from regionedit.data.shard_names import find_shards
from regionedit.files import write_atomic

NAME = "index.json"
SCHEMA = 1
HASHED = ("{}.tar", "{}.instructions.jsonl", "{}.marks.jsonl", "{}.subset.jsonl", "{}.truth.tar")
LONGEST = 100  # words; longer texts are counted as this long
COUNTERS = ("operations", "dropped", "marks", "caption_words", "instruction_words", "target_words", "formats")


def build_index(folder: Path, workers: int) -> dict[str, Any]:
    """Read every shard of a folder and write index.json; returns its contents. Raises ValueError: no shards."""
    shards = find_shards(folder, allow_gaps=True)
    known = _known_hashes(folder / NAME)
    with ThreadPoolExecutor(workers) as pool:  # hashing is most of the work and releases the GIL
        jobs = pool.map(lambda shard: _index_shard(folder, shard, known), shards)
        entries = list(track(jobs, "indexing", len(shards), console=Console(stderr=True)))
    totals: dict[str, Any] = {"shards": len(shards), "samples": 0, "kept": 0, "bytes": 0}
    counts: dict[str, Counter] = {name: Counter() for name in COUNTERS}
    for entry in entries:
        totals["samples"] += entry.get("samples", 0)
        totals["kept"] += entry.get("kept", 0)
        totals["bytes"] += sum(file["bytes"] for file in entry["files"].values())
        for name, counter in entry.pop("counts", {}).items():
            counts[name].update(counter)
    index = {
        "schema": SCHEMA,
        "totals": totals,
        **{name: dict(sorted(counter.items())) for name, counter in counts.items()},
        "broken": {entry["shard"]: entry["broken"] for entry in entries if "broken" in entry},
        "shards": entries,
    }
    write_atomic(folder / NAME, json.dumps(index, indent=1).encode())
    return index


def left_out(folder: Path, shard: str) -> dict[str, list[str]]:
    """key -> reasons, for the samples of a shard that training leaves out: marks and dropped instructions."""
    reasons: dict[str, list[str]] = {}
    for path in mark_files(folder, shard):
        for key, why in read_marks(path).items():
            reasons.setdefault(key, []).extend(why)
    for key, why in read_instructions(folder, shard).dropped.items():
        reasons.setdefault(key, []).append(f"dropped: {why}")
    return reasons


def _index_shard(folder: Path, shard: str, known: dict[tuple, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"shard": shard, "files": {}}
    for path in (folder / name.format(shard) for name in HASHED):
        if path.is_file():
            entry["files"][path.name] = _file(path, known)
    try:
        return entry | _contents(folder, shard)
    except ValueError as error:
        return entry | {"broken": str(error)}


def _contents(folder: Path, shard: str) -> dict[str, Any]:
    """Counts of one shard; lengths and operations count only the samples that stay."""
    members = index_tar(folder / f"{shard}.tar")
    written, out = read_instructions(folder, shard), left_out(folder, shard)
    counts: dict[str, Counter] = {name: Counter() for name in COUNTERS}
    counts["dropped"].update(written.dropped.values())
    counts["marks"].update(
        reason for path in mark_files(folder, shard) for why in read_marks(path).values() for reason in why
    )
    with (folder / f"{shard}.tar").open("rb") as file:
        for key, parts in members.items():
            counts["formats"].update(suffix for suffix in parts if suffix in PICTURES)
            if key in out:
                continue
            entry = written.entries.get(key, {})
            if "txt" in parts:
                offset, length = parts["txt"]
                stored = os.pread(file.fileno(), length, offset)
                caption = entry.get("source_caption") or stored.decode(errors="replace")
                counts["caption_words"][_words(caption)] += 1
            if entry:
                counts["instruction_words"][_words(entry.get("instruction", ""))] += 1
                counts["target_words"][_words(entry.get("target_caption", ""))] += 1
                counts["operations"][entry.get("operation") or "unknown"] += 1
    kept = sum(key not in out for key in members)
    return {"samples": len(members), "kept": kept, "instructions": len(written.entries), "counts": counts}


def _words(text: str) -> int:
    return min(len(text.split()), LONGEST)


def _file(path: Path, known: dict[tuple, str]) -> dict[str, Any]:
    found = path.stat()
    stamp = (path.name, found.st_size, found.st_mtime_ns)
    if stamp not in known:
        with path.open("rb") as file:
            known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": found.st_size, "modified_ns": found.st_mtime_ns, "sha256": known[stamp]}


def _known_hashes(path: Path) -> dict[tuple, str]:
    """Hashes from an earlier index, by the file's name, size and modification time."""
    try:
        shards = json.loads(path.read_text())["shards"]
        files = [(name, file) for entry in shards for name, file in entry["files"].items()]
        return {(name, file["bytes"], file["modified_ns"]): file["sha256"] for name, file in files}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
