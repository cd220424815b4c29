"""Writes stored proposals of a perfect generator, to separate the generator's errors from those of the method.

    python data_prep/microworld/oracle_proposals.py --kind perfect --out data/study/perfect_proposals
    python data_prep/microworld/oracle_proposals.py --kind relaid --out data/study/relaid_proposals

`perfect` is the true result: only the requested change, in its place. `relaid` imitates a perfect generator that
repaints the whole picture: everything in the target caption, in another arrangement. Both use the ground truth of the
training samples and serve as upper bounds in the study; no shipped model was trained on them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pack import Part, make_tar, render_in_parts, study_parts
from PIL import Image
from rich.progress import track

from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.microworld.scene import Scene, place, sample_background

EVERYTHING = png(Image.new("L", (64, 64), 255))


def relaid(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same objects and the same kind of background in another arrangement; sizes stay if there is room."""
    while True:
        objects = ()
        for thing in scene.things:
            spot = place(rng, objects, low=thing.radius, high=thing.radius) or place(rng, objects, high=thing.radius)
            if spot is None:
                break
            objects += (replace(thing, x=spot[0], y=spot[1], radius=spot[2]),)
        else:
            ground = sample_background(rng)
            kind = scene.background
            return Scene(replace(ground, tone=kind.tone, texture=kind.texture), objects)


def write_shard(part: Part, kind: str) -> None:
    """Write `{shard}.proposals.tar` with a picture and a mask for every sample."""
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
    parser.add_argument("--shards", type=int, default=32, help="shards of the training split, 1,000 samples each")
    args = parser.parse_args()
    parts = study_parts(args.out, args.shards)
    missing = [part for part in parts if not (part.out / f"{part.name}.proposals.tar").exists()]
    for part in track(missing, description=args.kind):
        write_shard(part, args.kind)


if __name__ == "__main__":
    main()
