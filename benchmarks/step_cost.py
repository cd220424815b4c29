"""The cost of a full-size training step per sample: operations counted on the meta device; nothing is timed.

    python -m benchmarks.step_cost

`step_{preset}`: the step of configs/train_sd15_{preset}.yaml, without what activation checkpointing computes twice.
Baseline: the paper taken literally at the size of exact512 (`full_size_step.literal`). `proposal`: making one stored
proposal of the preset `stored`; baseline: the step that then uses it. `features`: caching a sample's latent and
captions; baseline: the same step. `clip_scores`: CLIP in data_prep/filter.py for a sample, which is a picture and two
captions; baseline: the step of `paper256`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size_step import PRESETS, batch_for, build, literal, preset
from benchmarks.harness import COUNTED, options, record
from benchmarks.region_cost import operations, proposal_operations
from regionedit.config import MemoryConfig, TrainConfig

CAPTIONS = ["a dog on a sofa", "a cat on a sofa"]


def step_operations(config: TrainConfig) -> int:
    """Operations of one sample's step, forward and backward."""
    config = replace(config, memory=MemoryConfig())
    module = build(config, "meta")
    pairs = batch_for(config, module, "meta", 1)
    with FlopCounterMode(display=False) as counter:
        module.loss(module.step(pairs, 0), config.loss)[0].backward()
    return counter.get_total_flops()


def main() -> None:
    options(__doc__).parse_args()
    stored = preset("stored")
    steps = {name: step_operations(preset(name)) for name in PRESETS}
    baseline = step_operations(literal(preset("exact512")))
    module = build(preset("fast512"), "meta")
    clip, generator = module.frozen.clip, module.frozen.generator
    picture_1CHW = torch.empty(1, 3, 512, 512, device="meta")
    text, image = operations(lambda: clip.encode_text(CAPTIONS)), operations(lambda: clip.encode_image(picture_1CHW))
    counted = {f"step_{name}": (count, baseline) for name, count in steps.items()}
    counted["proposal"] = proposal_operations(stored.generator), steps["stored"]
    counted["features"] = text + operations(lambda: generator.source_latents(picture_1CHW)), steps["stored"]
    counted["clip_scores"] = text + image, steps["paper256"]
    for name, (ours, other) in counted.items():
        record(name, ours / 1e12, other / 1e12, "TFLOP", COUNTED)


if __name__ == "__main__":
    main()
