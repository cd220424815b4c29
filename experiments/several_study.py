"""Edits two objects of one picture by two instructions: in one pass or one after the other, with and without regions.

    python experiments/several_study.py --out docs/study/several.json

The microworld's InstructPix2Pix edits held-out pictures; variants that use regions get the true region of each
instruction. Scores are those of the raw pictures, before compositing: how often an edit succeeds, how often both do,
and the change outside both true regions.

Shape letters: B pictures, K = 2 instructions, C channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import foi_study
import numpy as np
import torch
from foi_study import CONFIG, FOI, PLAIN
from harness import options, rounded, show, write_json
from known_edits import KnownEdits, change_where, successes
from torch import Tensor

from regionedit.command_line import load_config
from regionedit.config import EditConfig
from regionedit.generators import InstructPix2Pix, load_generator
from regionedit.microworld.edits import Edit, sample_edit
from regionedit.microworld.splits import sample, scene_rng
from regionedit.records import Instruction
from regionedit.region_scores import LOCAL_OPERATIONS

BLENDED = PLAIN | {"latent_blend": True}
VARIANTS: dict[str, tuple[dict, bool]] = {  # settings, whether in one pass
    "plain, together": (PLAIN, True),
    "plain, one after the other": (PLAIN, False),
    "FoI, together": (FOI, True),
    "FoI, one after the other": (FOI, False),
    "latents blended, together": (BLENDED, True),
    "latents blended, one after the other": (BLENDED, False),
}


@dataclass(frozen=True)
class Pairs:
    """Pictures with two edits each, of different objects.

    Args:
        first, second: the edits, each from the same source, with its own true region.
    """

    first: KnownEdits
    second: KnownEdits

    @property
    def masks_BKHW(self) -> Tensor:
        """True regions, 0 or 1."""
        return (torch.cat([self.first.truth_B1HW, self.second.truth_B1HW], 1) > 0).float()

    def instructions(self, b: int) -> tuple[Instruction, Instruction]:
        return Instruction(self.first.edits[b].instruction), Instruction(self.second.edits[b].instruction)


def pairs(count: int, seed: int) -> Pairs:
    """The first `count` validation edits of existing objects whose picture allows a second edit."""
    chosen: list[tuple[Edit, Edit]] = []
    index = 0
    while len(chosen) < count:
        edit = sample("validation", seed, index, LOCAL_OPERATIONS)
        other = _another(edit, scene_rng("validation", seed + 1, index))
        chosen += [(edit, other)] if other else []
        index += 1
    return Pairs(*(KnownEdits.of([pair[k] for pair in chosen]) for k in range(2)))


def _another(edit: Edit, rng: np.random.Generator) -> Edit | None:
    """An edit of another object of the same picture; the two may not lead to the same colour and shape."""
    for _ in range(8):
        operation = LOCAL_OPERATIONS[int(rng.integers(len(LOCAL_OPERATIONS)))]
        other = sample_edit(edit.source, rng, operation)
        if other is None or other.named == edit.named:
            continue
        changed = [e.changed.pair for e in (edit, other) if e.operation != "remove"]
        if len(set(changed)) == len(changed):
            return other
    return None


def repaint(generator: InstructPix2Pix, edits: Pairs, together: bool) -> Tensor:
    """Raw generated pictures, BCHW in [0, 1]."""
    pictures_BCHW, rows = edits.first.source_BCHW, range(len(edits.first.edits))
    if together:
        return foi_study.repaint(
            generator, pictures_BCHW, [edits.instructions(b) for b in rows], edits.masks_BKHW, "together"
        )
    for k in range(2):
        one = [edits.instructions(b)[k : k + 1] for b in rows]
        pictures_BCHW = foi_study.repaint(generator, pictures_BCHW, one, edits.masks_BKHW[:, k : k + 1], "in turn")
    return pictures_BCHW


def scores(edited_BCHW: Tensor, edits: Pairs) -> dict[str, float]:
    """Success rate of single edits, share of pictures where both succeed, and the change outside both true regions."""
    first_B, second_B = successes(edited_BCHW, edits.first), successes(edited_BCHW, edits.second)
    kept_B1HW = 1 - edits.masks_BKHW.amax(1, keepdim=True)
    return {
        "success": float((first_B.mean() + second_B.mean()) / 2),
        "both": float((first_B & second_B).mean()),
        "change_outside_truth": change_where(kept_B1HW, edited_BCHW, edits.first),
    }


def main() -> None:
    args = options(__doc__, CONFIG, "docs/study/several.json", (96, "number of pictures")).parse_args()
    config = load_config(EditConfig, args.config)
    pipeline = load_generator(config.generator).pipeline
    edits, results = pairs(args.samples, 13), {}
    for name, (changes, together) in VARIANTS.items():
        generator = InstructPix2Pix(pipeline, replace(config.generator, **changes))
        results[name] = rounded(scores(repaint(generator, edits, together), edits))
    write_json(args.out, results)
    show("two instructions", results)


if __name__ == "__main__":
    main()
