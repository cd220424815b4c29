"""The cost of a full-size training step per sample: operations counted on the meta device; nothing is timed.

    python -m benchmarks.step_cost

`step_{preset}`: the step of configs/train_sd15_{preset}.yaml, without what activation checkpointing computes twice.
Baseline: the paper taken literally at the size of exact512 (`full_size_step.literal`). `proposal`: making one stored
proposal of the preset `stored`; baseline: the step that then uses it. `features`: caching a sample's latent and
captions; baseline: the same step. `step_{preset}_float32`, `features_float32`: what of them is computed in float32,
which a GPU does in TF32 at half of bfloat16's rate; baseline: the whole. `clip_scores`: CLIP in data_prep/filter.py for
a sample, which is a picture and two captions; baseline: the step of `paper256`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size_models import INSTRUCTION_TOKENS
from benchmarks.full_size_step import batch_for, build, literal, preset
from benchmarks.harness import COUNTED, PRESETS, options, record
from benchmarks.region_cost import operations, proposal_operations
from regionedit.config import MemoryConfig, TrainConfig

CAPTIONS = ["a dog on a sofa", "a cat on a sofa"]


class OperationsByDtype(FlopCounterMode):
    """Inside, counts operations by the dtype of the tensors that are multiplied; GPUs multiply each at another rate. A
    multiplication and an addition count as two.

    On the meta device, torch computes the attention of bfloat16 tensors in float32; inside, in bfloat16 as on a GPU.

    Attributes:
        by_dtype: dtype -> operations so far.
    """

    def __init__(self):
        super().__init__(display=False)
        self.by_dtype: Counter[torch.dtype] = Counter()

    def __enter__(self):
        self._upcast = not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        return super().__enter__()

    def __exit__(self, *raised):
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(not self._upcast)
        return super().__exit__(*raised)

    def _count_flops(self, func_packet, out, args, kwargs):
        before = self.get_total_flops()
        result = super()._count_flops(func_packet, out, args, kwargs)
        if counted := self.get_total_flops() - before:
            self.by_dtype[next(value.dtype for value in args if isinstance(value, torch.Tensor))] += counted
        return result


def step_operations(config: TrainConfig) -> Counter[torch.dtype]:
    """Operations of one sample's step, forward and backward, by dtype. The predictor counts with the dtype of
    `trainer.precision`, because autocast does not reach the meta device."""
    config = replace(config, memory=MemoryConfig())
    module = build(config, "meta")
    pairs = batch_for(config, module, "meta", 1)
    with OperationsByDtype() as whole:
        module.loss(module.step(pairs, 0), config.loss)[0].backward()
    if config.trainer.get("precision") == "bf16-mixed":
        clip = module.frozen.clip
        patches_1ND = torch.empty(1, clip.grid**2, clip.dim, device="meta")
        tokens_1MD = torch.empty(1, INSTRUCTION_TOKENS, clip.dim, device="meta")
        with OperationsByDtype() as predictor:
            prediction = module.predictor(patches_1ND, tokens_1MD)
            projected = [module.predictor.project(patches) for patches in (patches_1ND, prediction.fused_BND)]
            (prediction.logits_BN.sum() + sum(each.sum() for each in projected)).backward()
        moved = predictor.by_dtype[torch.float32]
        whole.by_dtype.update({torch.float32: -moved, torch.bfloat16: moved})
    return whole.by_dtype


def main() -> None:
    options(__doc__).parse_args()
    stored = preset("stored")
    steps = {name: step_operations(preset(name)) for name in PRESETS}
    baseline = step_operations(literal(preset("exact512")))
    module = build(preset("fast512"), "meta")
    clip, generator = module.frozen.clip, module.frozen.generator
    picture_1CHW = torch.empty(1, 3, 512, 512, device="meta")
    text, image = operations(lambda: clip.encode_text(CAPTIONS)), operations(lambda: clip.encode_image(picture_1CHW))
    features = text + operations(lambda: generator.source_latents(picture_1CHW))
    total = {name: count.total() for name, count in steps.items()}
    counted = {f"step_{name}": (count, baseline.total()) for name, count in total.items()}
    in_float32 = {name: (count[torch.float32], total[name]) for name, count in steps.items()}
    counted |= {f"step_{name}_float32": pair for name, pair in in_float32.items()}
    counted["proposal"] = proposal_operations(stored.generator), total["stored"]
    counted["features"] = features, total["stored"]
    counted["features_float32"] = text, features
    counted["clip_scores"] = text + image, total["paper256"]
    for name, (ours, other) in counted.items():
        record(name, ours / 1e12, other / 1e12, "TFLOP", COUNTED)


if __name__ == "__main__":
    main()
