"""Writes small folders of standard shards for tests: plain colours whose value is the sample's number."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import webdataset
from PIL import Image


def picture(number: int, size: int = 8, format: str = "PNG") -> bytes:
    """A square of one colour; in PNG, red and green hold the number."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 128)).save(buffer, format)
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, dict[str, bytes]]]) -> None:
    with path.open("wb") as file, webdataset.TarWriter(file, mtime=0, encoder=False) as tar:
        for key, parts in members:
            tar.write({"__key__": key, **parts})


def write_instructions(path: Path, entries: list[dict]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in [{"schema": 1, "writer": "test"}, *entries]))


def write_shards(
    folder: Path,
    sizes: tuple[int, ...] = (5, 7, 4),
    suffix: str = "png",
    truth: bool = False,
    change: Callable[[str, dict[str, bytes]], dict[str, bytes]] = lambda key, parts: parts,
) -> Path:
    """Shards of these sizes with keys k000000, k000001, ...; `change` may spoil a sample's members."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, size in enumerate(sizes):
        members, entries, truths = [], [], []
        for _ in range(size):
            key = f"k{number:06d}"
            shown = picture(number, format={"png": "PNG", "jpg": "JPEG"}[suffix])
            parts = {suffix: shown, "txt": f"picture {number}".encode(), "json": json.dumps({"key": key}).encode()}
            members.append((key, change(key, parts)))
            edit = {"key": key, "instruction": f"change {number}", "target_caption": f"changed {number}"}
            entries.append(edit | ({"operation": "recolour"} if truth else {}))
            objects = Image.new("L", (8, 8), 0)
            objects.paste(2, (0, 0, 2, 2))
            objects.paste(1, (4, 4, 8, 8))
            mask = objects.point(lambda value: 255 if value == 1 else 0)
            truths.append((key, {"mask.png": _png(mask), "objects.png": _png(objects)}))
            number += 1
        write_tar(folder / f"{shard:05d}.tar", members)
        write_instructions(folder / f"{shard:05d}.instructions.jsonl", entries)
        if truth:
            write_tar(folder / f"{shard:05d}.truth.tar", truths)
    return folder


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
