"""Pictures per second of data_prep/filter.py's rules without models, compared with only decoding them with PIL.

    python -m benchmarks.filters [--samples 3000]

256 px JPEG, two processes each. Ours reads the tars, hashes every file twice (SHA-256, perceptual), reads captions and
columns, applies every rule of configs/filter.yaml that needs no model, compares all samples and writes the marks. The
baseline decodes the same pictures, already in memory, to RGB, which every filter on pixels has to do first. Times are
CPU seconds of all processes together, halved for two cores, so other programs on the machine do not count. The figures
are medians over alternating rounds. Target: 300 pictures/s on two cores.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from benchmarks.harness import medians, options, record, seconds
from benchmarks.loader import SHARD, write_shards
from regionedit.command_line import load_config
from regionedit.data.index import index_tar

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, WORKERS, SIZE = 3, 2, 256
OURS = ("*.measured.safetensors", "*.marks.jsonl")


def processor_seconds() -> float:
    """CPU seconds of this process and of its finished child processes."""
    return sum(os.times()[:4])


def our_rate(folder: Path, samples: int) -> float:
    """Samples per second of the filter's first run over a folder."""
    sys.path.insert(0, str(ROOT / "data_prep"))  # its scripts import each other by bare names
    from filter import filter_shards
    from filter_config import FilterConfig

    for path in (path for pattern in OURS for path in folder.glob(pattern)):
        path.unlink()
    config = replace(load_config(FilterConfig, ROOT / "configs/filter.yaml"), data=str(folder), workers=WORKERS)
    summaries = []
    taken = seconds(lambda: summaries.append(filter_shards(config)), processor_seconds)
    assert summaries[0].samples == samples
    return WORKERS * samples / taken


def decode(pictures: list[bytes]) -> int:
    return sum(len(Image.open(io.BytesIO(data)).convert("RGB").getbands()) // 3 for data in pictures)


def pictures_of(tar: Path) -> list[bytes]:
    stored = tar.read_bytes()
    return [stored[a : a + n] for parts in index_tar(tar).values() for a, n in [parts["jpg"]]]


def plain_rate(shards: list[list[bytes]]) -> float:
    """Pictures per second when only decoding them."""
    started = processor_seconds()
    with ProcessPoolExecutor(WORKERS) as pool:
        count = sum(pool.map(decode, shards))
    return WORKERS * count / (processor_seconds() - started)


def main() -> None:
    samples = options(__doc__, samples=(3000, SHARD, "number of samples")).parse_args().samples // SHARD * SHARD
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shards(folder, samples, "jpg", SIZE)
        shards = [pictures_of(tar) for tar in sorted(folder.glob("*.tar"))]
        ours, baseline = medians(lambda: our_rate(folder, samples), lambda: plain_rate(shards), rounds=ROUNDS)
    record("filters_256", ours, baseline, "pictures/s of two cores, by CPU time")


if __name__ == "__main__":
    main()
