"""Seconds until the first batch of a run that resumes at its millionth step, compared with a new run.

    python -m benchmarks.resume

5 million samples in 5,000 shards, global batch 256, one process. The shards are links to one small tar, and the
manifest is artificial, as if it had been cached. The rest is timed: plan, reader, decoding, the batch. Target: at most
2 s.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import options, record, seconds
from benchmarks.loader import write_shards
from regionedit.config import DataConfig
from regionedit.data.loader import TrainLoader
from regionedit.data.manifest import Manifest
from regionedit.data.sources import Source

SHARDS, SAMPLES, STEP = 5000, 1000, 1_000_000
DATA = DataConfig(global_batch=256, image_size=64, workers=0)


def made_up_manifest(folder: Path) -> Manifest:
    """A manifest of SHARDS shards with SAMPLES samples each, all of them the first sample of one real shard."""
    real = folder / "real"
    real.mkdir()
    write_shards(real, 250, "png", 64)
    first = Manifest.open(real)
    names = tuple(f"{number:05d}" for number in range(SHARDS))
    for name in names:
        for suffix in ("tar", "instructions.jsonl"):
            (folder / f"{name}.{suffix}").symlink_to(real / f"00000.{suffix}")
    count = SHARDS * SAMPLES
    return Manifest(
        sources=(Source(str(folder), folder, names),),
        proposals=None,
        shards=names,
        sizes=np.full(SHARDS, SAMPLES),
        keys=np.broadcast_to(first.keys[:1], (count,)),
        columns={part: np.broadcast_to(column[:1], (count, 2)) for part, column in first.columns.items()},
        identity="made up",
    )


def first_batch(manifest: Manifest, position: int) -> None:
    """From the manifest to the first batch."""
    loader = TrainLoader(manifest, DATA, seed=0)
    loader.load_state_dict(loader.state_dict() | {"position": position})
    next(iter(loader))


def main() -> None:
    options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        manifest = made_up_manifest(Path(temporary))
        first_batch(manifest, 0)
        resumed, new = (seconds(lambda place=place: first_batch(manifest, place)) for place in (STEP, 0))
        record("resume_at_a_million", resumed, new, "s until the first batch")


if __name__ == "__main__":
    main()
