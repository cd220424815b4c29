"""Settings of the networks: frozen encoders, region predictor, frozen generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MICROWORLD = "checkpoints/microworld"


@dataclass
class EncodersConfig:
    """The frozen encoders.

    Args:
        clip: open_clip model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or an architecture name such as ViT-L-14.
        clip_pretrained: open_clip tag for an architecture name (openai); None for the other two forms.
        instruction: folder or hub name of a T5 encoder, whose width equals CLIP's projection (768 in the paper).
        instruction_revision: pinned revision of a hub name.
        max_instruction_tokens: longer instructions are cut, with a warning.
        precision: precision of the frozen encoders' weights; losses are always float32. auto: bfloat16 if the device
            multiplies it faster than float32 (see `device.fast_bfloat16`), else float32; in training always float32,
            because equation 8 compares features that differ by less than the rounding of bfloat16.
    """

    clip: str = f"local-dir:{MICROWORLD}/clip"
    clip_pretrained: str | None = None
    instruction: str = f"{MICROWORLD}/t5"
    instruction_revision: str | None = None
    max_instruction_tokens: int = 77
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass
class PredictorConfig:
    """The region predictor, equations 1-3 and f_sem.

    Args:
        variant: `default`, or `paper`: exactly eq. 1-3 (no residual, no norm, no positions, one head).
        heads: attention heads of the default variant.
        residual: add each attention's input to its output.
        norm: LayerNorm before each attention and the MLP.
        positions: learned position per patch.
        mlp_width: hidden width of the region head; 0 means the embedding width.
        initial_probability: P of an untrained predictor, set by the bias of the region head.
    """

    variant: Literal["default", "paper"] = "default"
    heads: int = 4
    residual: bool = True
    norm: bool = True
    positions: bool = True
    mlp_width: int = 0
    initial_probability: float = 0.5


@dataclass
class GeneratorConfig:
    """The frozen generator.

    Args:
        name: key of GENERATORS.
        path: folder or hub name in diffusers' layout.
        revision: pinned revision of a hub name.
        variant: variant of the weight files, such as fp16 if only those are safetensors; None for the plain ones.
        size: pictures are fitted to this many pixels on the longer side before generation; 0 keeps their size.
        steps: denoising steps. Not given in the paper.
        gradient_steps: how many last steps are differentiated with `step.gradient: full`; 0 for all. Not given in the
            paper.
        guidance: classifier-free guidance scale w_cfg, eq. 19; 1 switches it off. Not given in the paper.
        image_guidance: `instruct_pix2pix` only: guidance scale towards the source picture; above 1.
        masked_image: what the U-Net sees of the source: `pixel` masks before encoding (how the public checkpoint was
            trained), `latent` masks the latent (exactly eq. 16).
        blend: put the noised source back outside the mask after every step (eq. 22, 23).
        decoder: folder or hub name of an AutoencoderTiny (TAESD) that replaces the autoencoder's own decoder: 18 times
            fewer operations, coarser pictures; for training. `stable_diffusion` only.
        decoder_revision: pinned revision of a hub name.
        precision: precision of the frozen weights. auto: bfloat16 if the device multiplies it faster than float32, else
            float32; generators that only compute in float32 use that.
        temperature: `masked_token` only: how random the choice of predicted tokens to keep is at the first step; falls
            to 0 at the last step. aMUSEd: 2.
        start: `instruct_pix2pix` only, like the settings up to attention_resolution: share of noise at the start. 1 is
            pure noise; below 1 editing starts from the source's noised latent, and only this share of the steps runs.
            Focus on Your Instruction (FoI): 0.8.
        latent_blend: at every step, replace the latent outside the region by the source's, noised to the level of the
            step.
        modulation: FoI's eq. 3: each sub-instruction is attended to inside its own region only.
        modulation_until: modulation ends after this share of the steps that run. FoI: 1.
        disentangle: FoI's eq. 9: text guidance inside the region only.
        disentangle_until: it ends after this share of the steps that run. FoI: 0.75.
        mask_steps: number of first steps whose attention the mask source `ip2p_attention` reads; modulation starts
            after them. 0 modulates every step, with a region from elsewhere. FoI: 1.
        attention_resolution: cells on the longer side of the attention that is read; 0: a quarter of the latent's side,
            FoI's 16 at 512 px.
        pipeline: `diffusers_inpaint` only, like the settings up to compile: the in-painting class for a text-to-image
            checkpoint of the same family (FluxInpaintPipeline for FLUX); None: the class that the checkpoint names.
        strength: share of noise at the start; below 1 the source remains partly visible, and only this share of the
            steps runs. None: the pipeline class's own default.
        scheduler: `lcm` (with an LCM LoRA), `ddim` or `dpm` instead of the checkpoint's own; for U-Nets.
        lora: folder, file or hub name of low-rank updates that are added to the weights.
        lora_revision: pinned revision of a hub name.
        safety_checker: `keep` the checkpoint's own: an edit that it blacks out fails and says so.
        offload: keep idle parts of the pipeline in the CPU's memory: whole models (`model`) or layer by layer
            (`sequential`, slow).
        compile: torch.compile the denoiser's repeated blocks: slow at first, faster from the second edit of a size.
        token_temperature: `next_scale` only, like all that follow: temperature at which tokens are drawn; 0 takes the
            likeliest.
        top_k: draw from this many likeliest tokens; 0 for all.
        checkout: folder of your checkout of yandex-research/switti or FoundationVision/VAR, whose model code then
            generates with the weights at `path`. Experimental.
    """

    name: str = "stable_diffusion"
    path: str = f"{MICROWORLD}/inpaint"
    revision: str | None = None
    variant: str | None = None
    size: int = 64
    steps: int = 8
    gradient_steps: int = 0
    guidance: float = 3.0
    image_guidance: float = 1.5
    masked_image: Literal["pixel", "latent"] = "pixel"
    blend: bool = True
    decoder: str | None = None
    decoder_revision: str | None = None
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    temperature: float = 2.0
    start: float = 1.0
    latent_blend: bool = False
    modulation: bool = False
    modulation_until: float = 1.0
    disentangle: bool = False
    disentangle_until: float = 0.75
    mask_steps: int = 1
    attention_resolution: int = 0
    pipeline: str | None = None
    strength: float | None = None
    scheduler: Literal["lcm", "ddim", "dpm"] | None = None
    lora: str | None = None
    lora_revision: str | None = None
    safety_checker: Literal["keep", "off"] = "keep"
    offload: Literal["none", "model", "sequential"] = "none"
    compile: bool = False
    token_temperature: float = 1.0
    top_k: int = 0
    checkout: str | None = None
