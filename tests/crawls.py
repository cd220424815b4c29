"""Small folders of shards as a crawl leaves them, with every flaw that the rules of data_prep/filter.py know."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.shards import write_instructions, write_tar

GOOD_CAPTION = "a brown dog on a green lawn"


def photograph(seed: int, size: tuple[int, int] = (300, 260)) -> Image.Image:
    """Coarse colours with some grain: pictures of two seeds look nothing alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def sample(seed: int, caption: str | bytes = GOOD_CAPTION, size: tuple[int, int] = (300, 260), **columns) -> dict:
    """The members of one sample; `columns` go to its .json."""
    text = caption if isinstance(caption, bytes) else caption.encode()
    return {"jpg": jpeg(photograph(seed, size)), "txt": text, "json": json.dumps(columns).encode()}


def write_crawl(folder: Path, shards: Sequence[dict[str, dict[str, bytes]]], instructions: bool = False) -> Path:
    """Shards 00000, 00001, ... of {key: members}."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, samples in enumerate(shards):
        write_tar(folder / f"{number:05d}.tar", list(samples.items()))
        if instructions:
            entries = [
                {"key": key, "instruction": "make it a cat", "target_caption": f"a cat instead of {key}"}
                for key in samples
            ]
            write_instructions(folder / f"{number:05d}.instructions.jsonl", entries)
    return folder


def read_reasons(folder: Path) -> dict[str, list[str]]:
    """Reasons by key, read without the code under test."""
    lines = [line for path in sorted(folder.glob("*.marks.jsonl")) for line in path.read_text().splitlines()[1:]]
    return {entry["key"]: entry["reasons"] for entry in map(json.loads, lines)}
