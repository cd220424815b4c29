"""Writes small folders of standard shards for tests: plain colours whose value is the sample's number."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import webdataset
from PIL import Image

from regionedit.images import png


def picture(number: int, size: int = 8, format: str = "PNG") -> bytes:
    """A square of one colour; in PNG, red and green hold the number."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 128)).save(buffer, format)
    return buffer.getvalue()


def truth_members(size: int) -> dict[str, bytes]:
    """The named object fills a quarter of the picture, another one a sixteenth."""
    objects = Image.new("L", (size, size), 0)
    objects.paste(2, (0, 0, size // 4, size // 4))
    objects.paste(1, (size // 2, size // 2, size, size))
    return {"mask.png": png(objects.point(lambda value: 255 * (value == 1))), "objects.png": png(objects)}


def write_tar(path: Path, members: list[tuple[str, dict[str, bytes]]]) -> None:
    with path.open("wb") as file, webdataset.TarWriter(file, mtime=0, encoder=False) as tar:
        for key, parts in members:
            tar.write({"__key__": key, **parts})


def write_instructions(path: Path, entries: list[dict]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in [{"schema": 1, "writer": "test"}, *entries]))


def line(number: int, **changes) -> dict:
    """A line of a sidecar."""
    return {"key": f"k{number:06d}", "instruction": "a", "target_caption": "b"} | changes


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
            truths.append((key, truth_members(8)))
            number += 1
        write_tar(folder / f"{shard:05d}.tar", members)
        write_instructions(folder / f"{shard:05d}.instructions.jsonl", entries)
        if truth:
            write_tar(folder / f"{shard:05d}.truth.tar", truths)
    return folder
