"""The cost of finding the region compared with two other methods, at Stable Diffusion 1.5's size and 512 px.

    python -m benchmarks.edit

`region_diffedit`, `region_leditspp`: operations of our region at full size (region_cost.py), compared with diffusers'
DiffEdit (`generate_mask`) and LEDITS++ (`invert` and the call, which makes its masks while it edits). The script counts
the U-Net evaluations of diffusers' own calls with default settings and tiny models, and the operations of one
evaluation and of encoding a picture once on the meta device. Target: 40 times fewer than DiffEdit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from benchmarks.full_size_models import INPAINT_SCHEDULER, inpaint_modules, tiny_parts
from benchmarks.harness import options, record
from benchmarks.region_cost import SIZE, operations, region_operations

COUNTED = "evaluations counted in the library, operations on the meta device, no machine"
SMALL = 128


def tiny_unet() -> torch.nn.Module:
    """Four channels in and out, attention at a half and a quarter of the latent's side."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        cross_attention_dim=768,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def evaluations(unet: torch.nn.Module, call: Callable[[], object]) -> int:
    """Number of samples that a U-Net processes during a call."""
    counts = []
    hook = unet.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    call()
    hook.remove()
    return sum(counts)


def diffedit_evaluations(picture: Image.Image) -> int:
    from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionDiffEditPipeline

    pipeline = StableDiffusionDiffEditPipeline(
        **tiny_parts(),
        unet=tiny_unet(),
        scheduler=DDIMScheduler(**INPAINT_SCHEDULER),
        inverse_scheduler=DDIMInverseScheduler(**INPAINT_SCHEDULER),
    )
    pipeline.set_progress_bar_config(disable=True)
    return evaluations(
        pipeline.unet, lambda: pipeline.generate_mask(picture, source_prompt="a dog", target_prompt="a cat")
    )


def leditspp_evaluations(picture: Image.Image) -> int:
    from diffusers import DPMSolverMultistepScheduler, LEditsPPPipelineStableDiffusion

    pipeline = LEditsPPPipelineStableDiffusion(
        **tiny_parts(),
        unet=tiny_unet(),
        scheduler=DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=2),
    )
    pipeline.set_progress_bar_config(disable=True)

    def edit() -> None:
        pipeline.invert(picture, height=SMALL, width=SMALL)
        pipeline(editing_prompt=["a cat"], reverse_editing_direction=[False], edit_threshold=[0.9])

    return evaluations(pipeline.unet, edit)


def evaluation_operations() -> tuple[int, int]:
    """Operations of one sample through the U-Net, and of encoding a picture."""
    with torch.device("meta"):
        modules = inpaint_modules()
        latent_1Cyx = torch.empty(1, 9, SIZE // 8, SIZE // 8)
        context_1LD, picture_1CHW = torch.empty(1, 77, 768), torch.empty(1, 3, SIZE, SIZE)
    unet, vae = modules["unet"], modules["vae"]
    return (
        operations(lambda: unet(latent_1Cyx, torch.tensor(1), encoder_hidden_states=context_1LD)),
        operations(lambda: vae.encode(picture_1CHW)),
    )


def main() -> None:
    options(__doc__).parse_args()
    region = region_operations()
    one, encoding = evaluation_operations()
    picture = Image.new("RGB", (SMALL, SMALL), "red")
    for name, counted in (("diffedit", diffedit_evaluations(picture)), ("leditspp", leditspp_evaluations(picture))):
        print(f"{name}: {counted} evaluations of the U-Net")
        record(f"region_{name}", region / 1e12, (encoding + counted * one) / 1e12, "TFLOP", COUNTED)


if __name__ == "__main__":
    main()
