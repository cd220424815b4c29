"""The cost of an edit compared with diffusers' own pipeline, and of finding the region compared with two other methods.

    python -m benchmarks.edit [--edits 8]

`edit_microworld`: edits per second of the editor with a drawn mask (generation, exact composite) and the shipped
models, compared with diffusers' StableDiffusionInpaintPipeline with the same weights, mask, steps and guidance.

`region_diffedit`, `region_leditspp`: operations of our region at full size (region_cost.py), compared with diffusers'
DiffEdit (`generate_mask`) and LEDITS++ (`invert` and the call, which makes its masks while it edits) at Stable
Diffusion 1.5's size and 512 px. The script counts the U-Net evaluations of diffusers' own calls with default settings
and tiny models, and the operations of one evaluation and of encoding a picture once on the meta device. Target: 40
times fewer than DiffEdit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from benchmarks import full_size_models
from benchmarks.harness import at_least, medians, options, seconds
from benchmarks.region_cost import SIZE, operations, region_operations
from benchmarks.results import record
from benchmarks.tiny_parts import tiny_parts, tiny_unet
from regionedit.editor import Editor
from regionedit.images import to_pictures
from regionedit.records import Captions, EditRequest

COUNTED = "evaluations counted in the library, operations on the meta device, no machine"
ROUNDS = 3
SMALL = 128


def edits_per_second(count: int) -> list[float]:
    """Edits per second of the editor and of the plain pipeline, measured alternately."""
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    editor = Editor.from_config("configs/edit_inpaint_microworld.yaml")
    settings = editor.config.generator
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        settings.path, safety_checker=None, dtype=getattr(torch, settings.dtype)
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    pipeline.set_progress_bar_config(disable=True)
    pictures = to_pictures(torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 40, 40))
    captions = Captions("a red circle", "a blue circle")
    requests = [EditRequest(picture, "make the circle blue", captions=captions, mask=mask) for picture in pictures]

    def ours() -> None:
        for request in requests:
            editor.edit(request)

    def plain() -> None:
        for picture in pictures:
            pipeline(
                captions.target,
                picture,
                mask,
                height=64,
                width=64,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
            )

    ours(), plain()  # to warm up
    return medians(lambda: count / seconds(ours), lambda: count / seconds(plain), rounds=ROUNDS)


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
        scheduler=DDIMScheduler(**full_size_models.INPAINT_SCHEDULER),
        inverse_scheduler=DDIMInverseScheduler(**full_size_models.INPAINT_SCHEDULER),
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
        modules = full_size_models.inpaint_modules()
        latent_1Cyx = torch.empty(1, 9, SIZE // 8, SIZE // 8)
        context_1LD, picture_1CHW = torch.empty(1, 77, 768), torch.empty(1, 3, SIZE, SIZE)
    unet, vae = modules["unet"], modules["vae"]
    return (
        operations(lambda: unet(latent_1Cyx, torch.tensor(1), encoder_hidden_states=context_1LD)),
        operations(lambda: vae.encode(picture_1CHW)),
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--edits", type=at_least(1), default=8, help="edits in each round")
    count = parser.parse_args().edits
    torch.set_num_threads(1)
    region = region_operations(torch.empty(1, 3, SIZE, SIZE, device="meta"))
    one, encoding = evaluation_operations()
    picture = Image.new("RGB", (SMALL, SMALL), "red")
    for name, counted in (("diffedit", diffedit_evaluations(picture)), ("leditspp", leditspp_evaluations(picture))):
        print(f"{name}: {counted} evaluations of the U-Net")
        record(f"region_{name}", region / 1e12, (encoding + counted * one) / 1e12, "TFLOP", COUNTED)
    record("edit_microworld", *edits_per_second(count), "edits/s")


if __name__ == "__main__":
    main()
