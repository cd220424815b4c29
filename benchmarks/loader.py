"""Samples per second of the training loader, compared with a plain webdataset pipeline over the same shards.

    python -m benchmarks.loader [--samples 1500]

Both decode, resize and batch in one loader process. Ours also joins the instructions by key, shuffles exactly across
shards and can resume. The baseline follows webdataset's documentation: shard shuffle, buffer shuffle, decode, batch.
There are two kinds of shards: 64 px PNG used at 64 px (the microworld) and 256 px JPEG used at 224 px (photographs).
The figures are medians over alternating rounds. Making the manifest, once per folder, is not timed.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image

from benchmarks.harness import medians, options, record
from regionedit.config import DataConfig
from regionedit.data.loader import TrainLoader
from regionedit.data.manifest import Manifest

BATCH, SHARD, ROUNDS = 32, 250, 3
KINDS = {"png_64": ("png", 64, 64), "jpeg_256": ("jpg", 256, 224)}  # suffix, stored size, size in training


def picture(rng: np.random.Generator, suffix: str, size: int) -> bytes:
    """A square picture file with about the detail of a photograph: coarse colours with some grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size))
    grainy = np.clip(np.asarray(coarse) + rng.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grainy).save(buffer, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_shard(path: Path, pictures: Sequence[bytes], suffix: str, texts: tuple[str, str, str]) -> None:
    """Write a shard and its instructions.

    Args:
        path: of the shard, without `.tar`.
        texts: caption, instruction and target caption of every sample.
    """
    caption, instruction, target = texts
    keys = [f"{path.name}{place:04d}" for place in range(len(pictures))]
    with tarfile.open(f"{path}.tar", "w") as tar:
        for key, data in zip(keys, pictures, strict=True):
            for name, part in ((suffix, data), ("txt", caption.encode()), ("json", b"{}")):
                add_file(tar, f"{key}.{name}", part)
    lines = [{"key": key, "instruction": instruction, "target_caption": target} for key in keys]
    content = "".join(json.dumps(line) + "\n" for line in [{"schema": 1}, *lines])
    Path(f"{path}.instructions.jsonl").write_text(content)


def write_shards(folder: Path, samples: int, suffix: str, size: int) -> None:
    """Write shards of random pictures."""
    rng = np.random.default_rng(0)
    for shard in range(samples // SHARD):
        pictures = [picture(rng, suffix, size) for _ in range(SHARD)]
        write_shard(folder / f"{shard:05d}", pictures, suffix, ("a caption", "change it", "another caption"))


def plain_webdataset(folder: Path, suffix: str, size: int) -> Iterable:
    """One epoch in batches of (float BCHW in [0, 1], captions)."""

    def tensor(picture: Image.Image) -> torch.Tensor:
        resized = picture.resize((size, size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy()).float() / 255

    pipeline = (
        webdataset.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=100)
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple(suffix, "txt")
        .map_tuple(tensor, lambda text: text)
        .batched(BATCH, partial=False)
    )
    return webdataset.WebLoader(pipeline, batch_size=None, num_workers=1)


def rate(batches: Iterable) -> float:
    """Samples per second over one epoch, including the start of the loader process."""
    started = time.perf_counter()
    count = sum(1 for _ in batches)
    return count * BATCH / (time.perf_counter() - started)


def rates(samples: int, suffix: str, stored: int, size: int) -> list[float]:
    """Samples per second of our loader and of the plain pipeline."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shards(folder, samples, suffix, stored)
        data = DataConfig(train=str(folder), global_batch=BATCH, image_size=size, workers=1)
        loader = TrainLoader(Manifest.open(folder), data, seed=0)
        return medians(lambda: rate(loader), lambda: rate(plain_webdataset(folder, suffix, size)), rounds=ROUNDS)


def main() -> None:
    samples = options(__doc__, samples=(1500, SHARD, "samples of each kind")).parse_args().samples
    torch.set_num_threads(1)
    for kind, shape in KINDS.items():
        record(f"loader_{kind}", *rates(samples, *shape), "samples/s")


if __name__ == "__main__":
    main()
