"""The cost of finding the region in an edit at full size: floating-point operations, counted on the meta device.

    python -m benchmarks.region_cost

Ours: CLIP ViT-L/14 on the picture, FLAN-T5-base on an instruction of 77 tokens, and the region predictor.
Baseline: the rest of the edit, which is Stable Diffusion 1.5 in-painting of one 512 px picture in 50 steps with
guidance: text encoder, two encodings, 100 U-Net evaluations, decoding. Target: at most 2 %.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import open_clip
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size_models
from benchmarks.harness import COUNTED
from benchmarks.results import record
from regionedit.config import PredictorConfig, StableDiffusionConfig
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
from regionedit.generators.stable_diffusion import StableDiffusion
from regionedit.region_predictor import RegionPredictor

SIZE, STEPS, INSTRUCTION_TOKENS = 512, 50, 77


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call; a multiplication and an addition count as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def region_operations(picture_1CHW: torch.Tensor) -> int:
    with torch.device("meta"):
        clip_model, instruction_model = full_size_models.clip_model(), full_size_models.instruction_model()
    clip = FrozenCLIP(clip_model, open_clip.get_tokenizer(full_size_models.CLIP)).to("meta")
    tokens = full_size_models.FixedTokens(INSTRUCTION_TOKENS)
    instruction_encoder = FrozenInstructionEncoder(instruction_model, tokens, INSTRUCTION_TOKENS + 1)
    with torch.device("meta"):
        predictor = RegionPredictor.from_config(PredictorConfig(), clip.dim, clip.grid)

    def find():
        return predictor(clip.encode_image(picture_1CHW).patches_BND, *instruction_encoder.encode(["..."]))

    return operations(find)


def generation_operations(picture_1CHW: torch.Tensor) -> int:
    """Of a square picture at its own size. Counted at one and two steps; each further step costs as the second."""
    with torch.device("meta"):
        modules = full_size_models.inpaint_modules()
    counts = []
    for steps in (1, 2):
        config = StableDiffusionConfig(size=picture_1CHW.shape[-1], num_inference_steps=steps, guidance_scale=7.5)
        tokens, scheduler = full_size_models.FixedTokens(77), full_size_models.inpaint_scheduler()
        generator = StableDiffusion(modules, tokens, scheduler, config)
        counts.append(operations(partial(generator.propose, picture_1CHW, picture_1CHW[:, :1], ["..."], [0])))
    return counts[0] + (STEPS - 1) * (counts[1] - counts[0])


def main() -> None:
    picture_1CHW = torch.empty(1, 3, SIZE, SIZE, device="meta")
    region, generation = region_operations(picture_1CHW), generation_operations(picture_1CHW)
    record("region_cost", region / 1e12, generation / 1e12, "TFLOP", COUNTED)


if __name__ == "__main__":
    main()
