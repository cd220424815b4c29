"""The cost of finding the region in an edit at full size: floating-point operations, counted on the meta device.

    python -m benchmarks.region_cost

Ours: CLIP ViT-L/14 on the picture, FLAN-T5-base on an instruction of 77 tokens, and the region predictor.
Baseline: the rest of the edit, which is Stable Diffusion 1.5 in-painting of one 512 px picture in 50 steps with
guidance: text encoder, two encodings, 100 U-Net evaluations, decoding. Target: at most 2 %.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_size_models import frozen_encoders, inpaint_generator
from benchmarks.harness import COUNTED, options, record
from regionedit.config import GeneratorConfig, PredictorConfig, StableDiffusionConfig
from regionedit.region_predictor import RegionPredictor

SIZE, STEPS = 512, 50


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call; a multiplication and an addition count as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def region_operations() -> int:
    clip, instruction_encoder = frozen_encoders()
    with torch.device("meta"):
        predictor = RegionPredictor.from_config(PredictorConfig(), clip.dim, clip.grid)
        picture_1CHW = torch.empty(1, 3, SIZE, SIZE)

    def find():
        return predictor(clip.encode_image(picture_1CHW).patches_BND, *instruction_encoder.encode(["..."]))

    return operations(find)


def proposal_operations(config: GeneratorConfig) -> int:
    """Operations of one proposal; counted at one and two steps, each further step costs as the second."""
    picture_1CHW = torch.empty(1, 3, config.size, config.size, device="meta")

    def counted(steps: int) -> int:
        generator = inpaint_generator(config)
        generator.schedule = generator.schedule[-steps:]
        return operations(lambda: generator.propose(picture_1CHW, picture_1CHW[:, :1], ["..."], [0]))

    one = counted(1)
    return one + (len(inpaint_generator(config).schedule) - 1) * (counted(2) - one)


def generation_operations(size: int) -> int:
    """Operations of painting one square picture in an edit."""
    return proposal_operations(StableDiffusionConfig(size=size, num_inference_steps=STEPS, guidance_scale=7.5))


def main() -> None:
    options(__doc__).parse_args()
    record("region_cost", region_operations() / 1e12, generation_operations(SIZE) / 1e12, "TFLOP", COUNTED)


if __name__ == "__main__":
    main()
