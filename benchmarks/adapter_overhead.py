"""The overhead of `diffusers_inpaint` over calling the pipeline directly.

    python -m benchmarks.adapter_overhead [--pairs 15]

Baseline: a Stable Diffusion in-painting pipeline of diffusers, called directly with tensors. Ours: the same pipeline
object behind the generator, with a mask and a callback after every step that decodes no preview. Both use a U-Net of
medium size with random weights, 256 px, 4 steps, guidance, float32 and one thread. Text encoder and autoencoder are
tiny, so the ratio is too high rather than too low. The script checks that both give the same picture.

The two are called alternately, and each goes first in every second pair. Time is the process's own CPU time. The ratio
is the median of the pairs' ratios: on a busy machine single calls vary by more than the overhead. Target: 1.02.
"""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.full_size_models import INPAINT_SCHEDULER, INPAINT_UNET, tiny_parts
from benchmarks.harness import options, record, seconds
from regionedit.config import DiffusersInpaintConfig
from regionedit.generators import DiffusersInpaint
from regionedit.generators.inpaint_pipelines import INPAINT_PIPELINES

SIZE = 256
STEPS = 4
GUIDANCE = 7.5
NAME = "StableDiffusionInpaintPipeline"


def pipeline():
    """A pipeline with the public in-painter's U-Net at three fifths of its channels."""
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**INPAINT_UNET | {"block_out_channels": (192, 384, 768, 768)})
    made = StableDiffusionInpaintPipeline(**tiny_parts(), unet=unet, scheduler=DDIMScheduler(**INPAINT_SCHEDULER))
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
def main() -> None:
    pairs = options(__doc__, pairs=(15, 1, "calls of each, after one warm-up call")).parse_args().pairs
    torch.set_num_threads(1)
    piped = pipeline()
    config = DiffusersInpaintConfig(size=SIZE, num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    generator = DiffusersInpaint(piped, INPAINT_PIPELINES[NAME], config)
    images_BCHW = torch.rand(1, 3, SIZE, SIZE)
    mask_B1HW = torch.zeros(1, 1, SIZE, SIZE)
    mask_B1HW[..., 64:192, 64:192] = 1

    def ours() -> torch.Tensor:
        return generator.propose(images_BCHW, mask_B1HW, ["a circle"], [1], lambda step, steps, guess: None)

    def theirs() -> torch.Tensor:
        return piped(
            prompt=["a circle"],
            image=images_BCHW,
            mask_image=mask_B1HW,
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(1)],
            output_type="pt",
        ).images

    if (ours() - theirs()).abs().max() > 1e-5:
        raise RuntimeError("the generator and the pipeline made different pictures; do not compare their times")
    times = []
    for pair in range(pairs):
        first, second = (ours, theirs) if pair % 2 else (theirs, ours)
        taken = {call: seconds(call, time.process_time) for call in (first, second)}
        times.append((taken[ours], taken[theirs]))
    ratio = statistics.median(mine / other for mine, other in times)
    baseline = statistics.median(other for _, other in times)
    record("adapter_overhead", ratio * baseline, baseline, "CPU seconds a call")


if __name__ == "__main__":
    main()
