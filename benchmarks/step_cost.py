"""What a full-size training step costs a sample, and what caches save of it: operations counted on the meta device.

    python -m benchmarks.step_cost

The step of configs/train_sd15.yaml: ViT-L/14, FLAN-T5-base, a proposal by Stable Diffusion 1.5 in-painting at 512 px in
20 guided steps, CLIP on the composed picture and back. Baseline of all figures is this step as it is. `step_256`: with
proposals of 256 px (generator.size 256). `step_cached`: with cached features (latents, captions). `step_stored`: with
stored proposals and cached captions. `clip_scores`: what data_prep/filter.py asks CLIP about a sample, a picture and
two captions.
"""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size_models
from benchmarks.region_cost import INSTRUCTION_TOKENS, SIZE, operations
from benchmarks.results import record
from regionedit.config import GeneratorConfig, PredictorConfig
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
from regionedit.generators.stable_diffusion import StableDiffusion
from regionedit.region_predictor import RegionPredictor

STEPS = 20
CAPTIONS = ["a dog on a sofa", "a cat on a sofa"]
COUNTED = "counted on the meta device, no machine"


def learning_operations(clip: FrozenCLIP, picture_1CHW: Tensor) -> int:
    """Region predictor and CLIP on the composed picture, both with the way back; CLIP and T5 on what is given."""
    tokens = full_size_models.FixedTokens(INSTRUCTION_TOKENS)
    with torch.device("meta"):
        instruction_encoder = FrozenInstructionEncoder(
            full_size_models.instruction_model(), tokens, INSTRUCTION_TOKENS + 1
        )
        predictor = RegionPredictor.from_config(PredictorConfig(heads=12, mlp_width=768), clip.dim, clip.grid)
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            patches_BND = clip.encode_image(picture_1CHW).patches_BND
            instruction = instruction_encoder.encode(["..."])
        probability_BN = predictor(patches_BND, *instruction).probability_BN
        composed_1CHW = picture_1CHW * probability_BN.mean()
        found = clip.encode_image(composed_1CHW)
        (found.global_BD.sum() + found.patches_BND.sum()).backward()
    return counter.get_total_flops()


def proposal_operations(size: int, known: bool = False) -> int:
    """One proposal, the source's latent known or not; every denoising step costs what the second one does."""
    with torch.device("meta"):
        modules = full_size_models.inpaint_modules()
        picture_1CHW = torch.empty(1, 3, size, size)
    counts = []
    for steps in (1, 2):
        config = GeneratorConfig(size=size, steps=steps, guidance=7.5)
        tokens, scheduler = full_size_models.FixedTokens(77), full_size_models.inpaint_scheduler()
        generator = StableDiffusion(modules, tokens, scheduler, config)
        latents_BChw = torch.empty(1, 4, size // 8, size // 8, device="meta") if known else None

        def propose(generator=generator, latents_BChw=latents_BChw):
            with generator.knowing(latents_BChw):
                return generator.propose(picture_1CHW, picture_1CHW[:, :1], ["..."], [0])

        counts.append(operations(propose))
    return counts[0] + (STEPS - 1) * (counts[1] - counts[0])


def main() -> None:
    picture_1CHW = torch.empty(1, 3, SIZE, SIZE, device="meta")
    with torch.device("meta"):
        clip_model = full_size_models.clip_model()
    clip = FrozenCLIP(clip_model, open_clip.get_tokenizer(full_size_models.CLIP)).to("meta")
    text, seen = (operations(lambda: clip.encode_text(CAPTIONS)), operations(lambda: clip.encode_image(picture_1CHW)))
    learning = learning_operations(clip, picture_1CHW)
    whole = learning + text + proposal_operations(SIZE)
    counted = {
        "step_256": learning + text + proposal_operations(256),
        "step_cached": learning + proposal_operations(SIZE, known=True),
        "step_stored": learning,
        "clip_scores": text + seen,
    }
    for name, ours in counted.items():
        record(name, ours / 1e12, whole / 1e12, "TFLOP", COUNTED)


if __name__ == "__main__":
    main()
