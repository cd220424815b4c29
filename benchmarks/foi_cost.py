"""The cost of Focus on Your Instruction over plain InstructPix2Pix, at Stable Diffusion 1.5's size, random weights.

    python -m benchmarks.foi_cost [--steps 4]

One 256 px picture, two sub-instructions, float32 on one thread, each system in a process of its own. Baseline: the
plain loop with three branches per step. Ours: the same steps with every part of FoI on, after one more step whose
attention gives the masks. That step weighs more here than among the paper's 80, and the autoencoder and text encoder,
which both systems need, are tiny. So both ratios are too high rather than too low.

Time is the process's own CPU time for region and edit, so a busy machine changes little. Memory is the process's peak,
weights included. Targets: at most 1.35 times the time and 1.3 times the memory.
"""

from __future__ import annotations

import time

import torch

from benchmarks.full_size_models import INPAINT_SCHEDULER, INSTRUCT_PIX2PIX_UNET, random_weights, tiny_parts
from benchmarks.harness import in_own_process, options, peak_mebibytes, record, seconds
from regionedit.config import InstructPix2PixConfig, RegionConfig
from regionedit.generators import InstructPix2Pix, noise_seed
from regionedit.mask_sources.fixed import Everything
from regionedit.mask_sources.ip2p_attention import Ip2pAttention
from regionedit.records import EditRequest

SIZE = 256
FOI = {"modulation": True, "disentangle": True, "latent_blend": True}
REQUEST = EditRequest(None, ("make the circle blue", "remove the square"))


def pipeline():
    """diffusers' pipeline around the U-Net; everything else is as small as possible."""
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel

    settings = {name: INPAINT_SCHEDULER[name] for name in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}
    return StableDiffusionInstructPix2PixPipeline(
        **tiny_parts(),
        unet=random_weights(lambda: UNet2DConditionModel(**INSTRUCT_PIX2PIX_UNET)),
        scheduler=EulerAncestralDiscreteScheduler(**settings),
    )


@torch.no_grad()
def measure(system: str, steps: int) -> tuple[float, float]:
    """CPU seconds of one edit, and the process's peak in MiB."""
    torch.set_num_threads(1)
    settings = FOI if system == "foi" else {}
    config = InstructPix2PixConfig(size=SIZE, num_inference_steps=steps, guidance_scale=7.5, **settings)
    generator = InstructPix2Pix(pipeline(), config)
    source = Ip2pAttention(generator, RegionConfig()) if system == "foi" else Everything()
    images_BCHW = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def edit() -> None:
        region = source.find(images_BCHW, [REQUEST], [None])
        generator.repaint(images_BCHW, region, [REQUEST], [None], [noise_seed(REQUEST.seed, REQUEST.id)])

    return seconds(edit, time.process_time), peak_mebibytes()


def main() -> None:
    steps = options(__doc__, steps=(4, 2, "denoising steps; one is not modulated")).parse_args().steps
    plain, foi = (in_own_process(measure, system, steps) for system in ("plain", "foi"))
    record("foi_time", foi[0], plain[0], "CPU seconds")
    record("foi_memory", foi[1], plain[1], "MiB")


if __name__ == "__main__":
    main()
