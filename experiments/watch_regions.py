"""Records how the region develops during training, for a figure with a row per picture and a column per step.

    python experiments/watch_regions.py --config configs/train_microworld.yaml \\
        --max_seconds 0 --max_steps 1500 --out outputs/watch_regions

It trains as train.py does with the same options, and records the predictor's output for a few validation edits, mostly
of objects with a look-alike beside them; study_report.py draws the figure. No loss ever sees these edits.

Shape letters: B pictures, N patches.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import torch
from dissect import facts
from known_edits import KnownEdits
from lightning.pytorch import Callback

from regionedit.command_line import errors_in_one_line, parse_command
from regionedit.config import TrainConfig
from regionedit.files import write_atomic
from regionedit.microworld.edits import Edit
from regionedit.microworld.splits import sample
from regionedit.region_scores import LOCAL_OPERATIONS
from regionedit.training import train

ALIKE = ("", "shape", "color", "color", "color and shape")
"""What other objects of the picture share with the named one, row by row."""


AT_STEPS = (1, 50, 100, 200, 400, 800, 1500)
RESULTS = "docs/study/regions_over_time.json"


class Snapshots(Callback):
    """Records the predictor's output for the pictures and instructions of `known`: `probability_BN`, by step."""

    def __init__(self, known: KnownEdits, at_steps: Sequence[int]):
        self.known, self.at_steps = known, set(at_steps)
        self.probability_BN: dict[int, torch.Tensor] = {}

    @torch.no_grad()
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index: int) -> None:
        if trainer.global_step not in self.at_steps:
            return
        clip, instruction_encoder, _ = module.frozen
        patches_BND = clip.encode_image(self.known.source_BCHW.to(module.device)).patches_BND
        prediction = module.predictor(patches_BND, *instruction_encoder.encode(self.known.instructions))
        self.probability_BN[trainer.global_step] = prediction.probability_BN.cpu()


def look_alikes() -> KnownEdits:
    """The first validation edits, all different, that fit the entries of `ALIKE`; each picture has three objects or
    more."""
    found: list[Edit | None] = [None] * len(ALIKE)
    for index in itertools.count():
        if None not in found:
            return KnownEdits.of(found)
        edit = sample("validation", 0, index, LOCAL_OPERATIONS)
        properties = facts(edit)
        open_rows = [row for row, alike in enumerate(ALIKE) if found[row] is None and alike == properties["alike"]]
        if open_rows and properties["things"] > 2:
            found[open_rows[0]] = edit


def main() -> None:
    config = parse_command(TrainConfig)
    with errors_in_one_line("watch_regions.py"):
        known = look_alikes()
        snapshots = Snapshots(known, AT_STEPS)
        train(config, [snapshots])
        if not snapshots.probability_BN:
            raise ValueError(f"out: the run in {config.out} is finished already; delete it to record another")
        recorded = {step: p_BN.round(decimals=3).tolist() for step, p_BN in snapshots.probability_BN.items()}
        write_atomic(RESULTS, json.dumps(recorded).encode())


if __name__ == "__main__":
    main()
