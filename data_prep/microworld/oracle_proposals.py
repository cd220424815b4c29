"""Stored proposals of a generator that makes no mistake, to tell what the generator costs from what the method costs.

    python data_prep/microworld/oracle_proposals.py --kind perfect --out data/study/perfect_proposals
    python data_prep/microworld/oracle_proposals.py --kind relaid --out data/study/relaid_proposals

`perfect` is the truly edited picture: the change, in its place, and nothing else. `relaid` is a faultless painter under
a mask of everything: what the target caption says, in another arrangement. Both read the truth of the training samples
and serve as upper bounds in the study; nothing that ships has learned from them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pack import Part, make_tar, render_in_parts
from PIL import Image
from rich.progress import track

from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.microworld.scene import Scene, place, sample_background

SHARD = 1000  # samples of a shard, as pack.py writes them
EVERYTHING = png(Image.new("L", (64, 64), 255))


def relaid(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same things and the same kind of background in another arrangement; sizes stay where there is room."""
    while True:
        placed = ()
        for thing in scene.things:
            spot = place(rng, placed, low=thing.radius, high=thing.radius) or place(rng, placed, high=thing.radius)
            if spot is None:
                break
            placed += (replace(thing, x=spot[0], y=spot[1], radius=spot[2]),)
        else:
            ground = sample_background(rng)
            kind = scene.background
            return Scene(replace(ground, tone=kind.tone, texture=kind.texture), placed)


def write_shard(part: Part, kind: str) -> None:
    """`{shard}.proposals.tar` with a picture and a mask for every sample."""
    pairs = list(part.edits())
    scenes = [edit.target for _, edit in pairs]
    if kind == "relaid":
        scenes = [relaid(scene, np.random.default_rng([part.first, i])) for i, scene in enumerate(scenes)]
    pictures = render_in_parts(scenes)
    members = [
        (key, {"png": png(Image.fromarray(picture)), "mask.png": EVERYTHING})
        for (key, _), picture in zip(pairs, pictures, strict=True)
    ]
    write_atomic(part.out / f"{part.name}.proposals.tar", make_tar(members))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("perfect", "relaid"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=32, help="of the training split, a thousand samples each")
    args = parser.parse_args()
    parts = [Part(args.out, "train", 0, i, i * SHARD, SHARD) for i in range(args.shards)]
    missing = [part for part in parts if not (part.out / f"{part.name}.proposals.tar").exists()]
    for part in track(missing, description=args.kind):
        write_shard(part, args.kind)


if __name__ == "__main__":
    main()
