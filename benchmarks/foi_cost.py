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

import json
import subprocess
import sys
import time

import torch

from benchmarks import full_size_models
from benchmarks.harness import at_least, options, peak_mebibytes, seconds
from benchmarks.results import record
from benchmarks.tiny_parts import tiny_parts
from regionedit.config import InstructPix2PixConfig, RegionConfig
from regionedit.generators import InstructPix2Pix, noise_seed
from regionedit.mask_sources.fixed import Everything
from regionedit.mask_sources.ip2p_attention import Ip2pAttention
from regionedit.records import EditRequest

SIZE = 256
FOI = {"modulation": True, "disentangle": True, "latent_blend": True}
REQUEST = EditRequest(None, ("make the circle blue", "remove the square"))


def random_unet() -> torch.nn.Module:
    """The public U-Net's architecture with small random weights, without the slow initialisation."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**full_size_models.INSTRUCT_PIX2PIX_UNET)
    unet.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return unet


def pipeline():
    """diffusers' pipeline around the U-Net; everything else is as small as possible."""
    from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

    settings = full_size_models.INPAINT_SCHEDULER
    return StableDiffusionInstructPix2PixPipeline(
        **tiny_parts(),
        unet=random_unet(),
        scheduler=EulerAncestralDiscreteScheduler(
            **{name: settings[name] for name in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}
        ),
    )


@torch.no_grad()
def measure(system: str, steps: int) -> dict[str, float]:
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

    return {"seconds": seconds(edit, time.process_time), "mebibytes": peak_mebibytes()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=at_least(2), default=4, help="denoising steps; one is not modulated")
    parser.add_argument("--system", choices=("foi", "plain"), help="measure one in this process, without recording it")
    given = parser.parse_args()
    if given.system:
        print(json.dumps(measure(given.system, given.steps)))
        return
    measured = {}
    for system in ("plain", "foi"):
        command = [sys.executable, "-m", "benchmarks.foi_cost", "--steps", str(given.steps), "--system", system]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        measured[system] = json.loads(output.splitlines()[-1])
    record("foi_time", measured["foi"]["seconds"], measured["plain"]["seconds"], "CPU seconds")
    record("foi_memory", measured["foi"]["mebibytes"], measured["plain"]["mebibytes"], "MiB")


if __name__ == "__main__":
    main()
