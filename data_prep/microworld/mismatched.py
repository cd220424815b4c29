"""Training shards in which some pictures have another picture's words, as a crawl's captions often are.

    python data_prep/microworld/mismatched.py --share 0.3 --out data/study/mismatched_30
    python data_prep/microworld/mismatched.py --share 0.2 --negatives --out data/study/negatives_20

Caption, instruction and target caption of a sample stay together; the picture they go with is another's. With
`--negatives` caption and picture stay, the instruction is another sample's, and the target caption is the picture's
own: what is named is mostly not there, and nothing should change. Stored proposals made under a mask of everything
never saw the picture, so those of the shards without mistakes serve.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pack import Part, render_in_parts, shard_is_there, write_pairs
from rich.progress import track

from regionedit.microworld.edits import Edit

SHARD = 1000  # samples of a shard, as pack.py writes them


def shuffled(samples: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which picture each sample gets: `share` of them, drawn at random, get the next one's of those drawn."""
    order = np.arange(samples)
    drawn = rng.permutation(samples)[: round(share * samples)]
    order[drawn] = np.roll(drawn, 1)
    return order


def negatives(edits: list[Edit], order: np.ndarray) -> list[Edit]:
    """The same pictures; where `order` has another's number, with its instruction, and a target that is the source."""
    return [
        edit if other == i else replace(edit, instruction=edits[other].instruction, target_caption=edit.source_caption)
        for i, (edit, other) in enumerate(zip(edits, order, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, required=True, help="of the samples, 0 to 1")
    parser.add_argument("--negatives", action="store_true", help="another's instruction, and nothing to change")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=10, help="of the training split, a thousand samples each")
    args = parser.parse_args()
    parts = [Part(args.out, "train", 0, i, i * SHARD, SHARD) for i in range(args.shards)]
    for part in track([part for part in parts if not shard_is_there(part)], description=f"{args.share:.0%} mismatched"):
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
