"""Writes training shards in which some pictures have the texts of another picture, as is common in crawled data.

    python data_prep/microworld/mismatched.py --share 0.3 --out data/study/mismatched_30
    python data_prep/microworld/mismatched.py --share 0.2 --negatives --out data/study/negatives_20

Caption, instruction and target caption of a sample stay together, but get the picture of another sample. With
`--negatives`, caption and picture stay, the instruction is that of another sample, and the target caption is the
picture's own caption: the named object is mostly absent, and nothing should change. Proposals for a mask of the whole
picture do not depend on the picture, so the stored proposals of the unchanged shards can be used.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pack import SHARD_FILES, is_there, render_in_parts, study_parts, write_pairs
from rich.progress import track

from regionedit.microworld.edits import Edit


def shuffled(samples: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Index of the picture that each sample gets: a random `share` of the samples exchange theirs in a cycle."""
    order = np.arange(samples)
    drawn = rng.permutation(samples)[: round(share * samples)]
    order[drawn] = np.roll(drawn, 1)
    return order


def negatives(edits: list[Edit], order: np.ndarray) -> list[Edit]:
    """The same edits; where `order` has another index, with its instruction and the source caption as target."""
    return [
        edit if other == i else replace(edit, instruction=edits[other].instruction, target_caption=edit.source_caption)
        for i, (edit, other) in enumerate(zip(edits, order, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, required=True, help="share of the samples, 0 to 1")
    parser.add_argument("--negatives", action="store_true", help="exchange instructions, with nothing to change")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=10, help="shards of the training split, 1,000 samples each")
    args = parser.parse_args()
    parts = study_parts(args.out, args.shards)
    missing = [part for part in parts if not is_there(part, *SHARD_FILES)]
    for part in track(missing, description=f"{args.share:.0%} mismatched"):
        pairs = list(part.edits())
        pictures = render_in_parts([edit.source for _, edit in pairs])
        order = shuffled(part.samples, args.share, np.random.default_rng(part.first))
        if args.negatives:
            keys, edits = zip(*pairs, strict=True)
            write_pairs(part, list(zip(keys, negatives(list(edits), order), strict=True)), pictures)
        else:
            write_pairs(part, pairs, pictures[order])


if __name__ == "__main__":
    main()
