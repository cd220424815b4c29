"""Choose a random part of a folder of shards, by the hash of each key: the same on every machine, nothing is copied.

    python data_prep/subset.py --data data/crawl --n 5000000 --seed 0

The command writes `{shard}.subset.jsonl` beside every shard: a header line, then for each sample that is left out a
line `{"key", "reasons": ["subset"]}`. write_instructions.py and training skip these samples. Run it again with another
`--n` or `--seed` to replace the files; with the same seed, a smaller n chooses among the samples of a larger n.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from rich.progress import track

from regionedit.command_line import errors_in_one_line
from regionedit.data import held_out
from regionedit.data.index import index_tar
from regionedit.data.marks import SUBSET, write_marks
from regionedit.data.shard_names import find_shards


def key_hashes(keys: list[str], seed: int) -> np.ndarray:
    """uint64 [keys], uniformly distributed, a pure function of seed and key."""
    return held_out.key_hashes((key.encode(errors="surrogateescape") for key in keys), f"subset\0{seed}\0".encode())


def choose(data: Path, n: int, seed: int) -> tuple[int, int]:
    """Write the files of every shard; returns (samples kept, all samples).

    Memory grows with n only, by some twenty bytes for each sample, not with the size of the folder.

    Raises:
        ValueError: no shards, a damaged shard, or fewer than n samples.
    """
    if n < 1:
        raise ValueError(f"--n: {n}; at least 1")
    shards = find_shards(data, allow_gaps=True)
    smallest, total = np.empty(0, np.uint64), 0
    for shard in track(shards, "hashing keys"):
        hashes = key_hashes([*index_tar(data / f"{shard}.tar")], seed)
        total += len(hashes)
        smallest = np.concatenate([smallest, hashes])
        if len(smallest) > 2 * n:
            smallest = np.partition(smallest, n - 1)[:n]
    if total < n:
        raise ValueError(f"--n: {n}, but {data} holds {total} samples; give a smaller n or download more")
    limit, kept = np.partition(smallest, n - 1)[n - 1], 0
    rules = {"subset": {"n": n, "seed": seed, "limit": int(limit)}}
    digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
    for shard in track(shards, "writing marks"):
        keys = [*index_tar(data / f"{shard}.tar")]
        out = key_hashes(keys, seed) > limit
        marks = {key: ["subset"] for key, left in zip(keys, out, strict=True) if left}
        write_marks(data / SUBSET.format(shard), rules, digest, marks)
        kept += len(keys) - len(marks)
    return kept, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--n", type=int, required=True, help="samples to keep")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with errors_in_one_line("subset.py"):
        kept, total = choose(args.data, args.n, args.seed)
    print(f"{kept} of {total} samples are kept")


if __name__ == "__main__":
    main()
