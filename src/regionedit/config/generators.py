"""Settings of the frozen generators: one dataclass for each, with the settings that it reads and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from regionedit.config.models import MICROWORLD


def check_strength(strength: float) -> None:
    """Raises ValueError: it is outside (0, 1]."""
    if not 0 < strength <= 1:
        raise ValueError(f"generator.strength: {strength} is outside (0, 1]; 1 starts from pure noise")


@dataclass
class GeneratorConfig:
    """Settings that every generator has.

    Args:
        name: key of GENERATORS; it decides which other settings there are.
        path: folder or hub name in diffusers' layout.
        size: pictures are fitted to this many pixels on the longer side before generation; 0 keeps their size.
        guidance_scale: classifier-free guidance scale w_cfg, eq. 19; 1 switches it off. Not given in the paper.
        dtype: precision of the frozen weights. auto: bfloat16 if the device multiplies it faster than float32, else
            float32; generators that only compute in float32 use that.

    Attributes:
        weights: the settings that decide what is loaded; all others can change afterwards.
    """

    name: str
    path: str
    size: int = 64
    guidance_scale: float = 3.0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    weights: ClassVar[tuple[str, ...]] = ("name", "path", "dtype")
    revision = variant = None  # fields of `PipelineConfig` only


@dataclass
class PipelineConfig(GeneratorConfig):
    """Settings of every generator whose weights are a pipeline of diffusers.

    Args:
        revision: pinned revision of a hub name.
        variant: variant of the weight files, such as fp16 if only those are safetensors; None for the plain ones.
        num_inference_steps: denoising steps; for `masked_token` rounds of prediction. Not given in the paper.
    """

    weights: ClassVar[tuple[str, ...]] = (*GeneratorConfig.weights, "revision", "variant")

    revision: str | None = None
    variant: str | None = None
    num_inference_steps: int = 8


@dataclass
class StableDiffusionConfig(PipelineConfig):
    """Stable Diffusion in-painting with its own, differentiable denoising loop.

    Args:
        strength: share of noise at the start. 1 is pure noise; below 1 editing starts from the source's noised latent,
            which keeps the layout, and only this share of the steps runs.
        gradient_steps: how many last steps are differentiated with `step.gradient: full`; 0 for all. Not given in the
            paper.
        masked_image: what the U-Net sees of the source: `pixel` masks before encoding (how the public checkpoint was
            trained), `latent` masks the latent (exactly eq. 16).
        latent_blend: at every step, replace the latent outside the mask by the source's, noised to the level of the
            step (eq. 22, 23).
        decoder: folder or hub name of an AutoencoderTiny (TAESD) that replaces the autoencoder's own decoder: 18 times
            fewer operations, coarser pictures; for training.
        decoder_revision: pinned revision of a hub name.
        compile: torch.compile the U-Net and the decoder: a microworld training step that makes its own proposal takes
            0.83 to 0.94 of the time, the first one 80 s more.

    Raises:
        ValueError: a strength outside its range.
    """

    weights: ClassVar[tuple[str, ...]] = (*PipelineConfig.weights, "decoder", "decoder_revision", "compile")

    name: Literal["stable_diffusion"] = "stable_diffusion"
    path: str = f"{MICROWORLD}/inpaint"
    strength: float = 1.0
    gradient_steps: int = 0
    masked_image: Literal["pixel", "latent"] = "pixel"
    latent_blend: bool = True
    decoder: str | None = None
    decoder_revision: str | None = None
    compile: bool = False

    def __post_init__(self):
        check_strength(self.strength)


@dataclass
class InstructPix2PixConfig(PipelineConfig):
    """InstructPix2Pix, and Focus on Your Instruction (FoI) on top of it.

    Args:
        image_guidance_scale: guidance scale towards the source picture; above 1.
        strength: share of noise at the start. 1 is pure noise; below 1 editing starts from the source's noised latent,
            and only this share of the steps runs. FoI: 0.8.
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

    Raises:
        ValueError: a share outside its range; a negative count; modulation or disentangling without text guidance.
    """

    name: Literal["instruct_pix2pix"] = "instruct_pix2pix"
    path: str = f"{MICROWORLD}/ip2p"
    image_guidance_scale: float = 1.5
    strength: float = 1.0
    latent_blend: bool = False
    modulation: bool = False
    modulation_until: float = 1.0
    disentangle: bool = False
    disentangle_until: float = 0.75
    mask_steps: int = 1
    attention_resolution: int = 0

    def __post_init__(self):
        check_strength(self.strength)
        for name in ("modulation_until", "disentangle_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"generator.{name}: {getattr(self, name)} is not a share of the steps; give 0 to 1")
        for name in ("mask_steps", "attention_resolution"):
            if getattr(self, name) < 0:
                raise ValueError(f"generator.{name}: {getattr(self, name)} is negative; give 0 or more")
        if (self.modulation or self.disentangle) and not self.guided:
            raise ValueError(
                f"generator.guidance_scale: {self.guidance_scale} with image_guidance_scale "
                f"{self.image_guidance_scale} computes no branch without text, which modulation and disentangle need; "
                "use guidance_scale above 1 and image_guidance_scale of at least 1"
            )

    @property
    def guided(self) -> bool:
        """Whether the branches without text and without picture are computed, by diffusers' rule."""
        return self.guidance_scale > 1 and self.image_guidance_scale >= 1


@dataclass
class MaskedTokenConfig(PipelineConfig):
    """Masked-token generation, such as aMUSEd.

    Args:
        temperature: how random the choice of predicted tokens to keep is at the first step; falls to 0 at the last
            step. aMUSEd: 2.

    Raises:
        ValueError: fewer than one step, or a temperature below 0.
    """

    name: Literal["masked_token"] = "masked_token"
    path: str = f"{MICROWORLD}/masked_token"
    temperature: float = 2.0

    def __post_init__(self):
        if self.num_inference_steps < 1:
            raise ValueError(f"generator.num_inference_steps: {self.num_inference_steps}, but must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"generator.temperature: {self.temperature:g}, but must not be negative")


@dataclass
class DiffusersInpaintConfig(PipelineConfig):
    """Any in-painting pipeline of diffusers.

    Args:
        pipeline: the in-painting class for a text-to-image checkpoint of the same family (FluxInpaintPipeline for
            FLUX); None: the class that the checkpoint names.
        strength: share of noise at the start; below 1 the source remains partly visible, and only this share of the
            steps runs. None: the pipeline class's own default.
        scheduler: `lcm` (with an LCM LoRA), `ddim` or `dpm` instead of the checkpoint's own; for U-Nets.
        lora: folder, file or hub name of low-rank updates that are added to the weights.
        lora_revision: pinned revision of a hub name.
        safety_checker: `keep` the checkpoint's own: an edit that it blacks out fails and says so.
        offload: keep idle parts of the pipeline in the CPU's memory: whole models (`model`) or layer by layer
            (`sequential`, slow).
        compile: torch.compile the denoiser's repeated blocks: slow at first, faster from the second edit of a size.
    """

    weights: ClassVar[tuple[str, ...]] = (
        *PipelineConfig.weights,
        "pipeline",
        "safety_checker",
        "offload",
        "compile",
        "lora",
        "lora_revision",
    )

    name: Literal["diffusers_inpaint"] = "diffusers_inpaint"
    path: str = f"{MICROWORLD}/inpaint"
    pipeline: str | None = None
    strength: float | None = None
    scheduler: Literal["lcm", "ddim", "dpm"] | None = None
    lora: str | None = None
    lora_revision: str | None = None
    safety_checker: Literal["keep", "off"] = "keep"
    offload: Literal["none", "model", "sequential"] = "none"
    compile: bool = False


@dataclass
class NextScaleConfig(GeneratorConfig):
    """Next-scale generation, such as VAR and Switti. The number of steps is the number of scales.

    Args:
        guidance_scale: as for every generator; it grows from 1 at the first scale to this value at the last, as in VAR.
        temperature: temperature at which tokens are drawn; 0 takes the likeliest.
        top_k: draw from this many likeliest tokens; 0 for all.
        checkout: folder of your checkout of yandex-research/switti or FoundationVision/VAR, whose model code then
            generates with the weights at `path`. Experimental.

    Raises:
        ValueError: a negative temperature or top_k.
    """

    weights: ClassVar[tuple[str, ...]] = (*GeneratorConfig.weights, "checkout")

    name: Literal["next_scale"] = "next_scale"
    path: str = f"{MICROWORLD}/next_scale"
    temperature: float = 1.0
    top_k: int = 0
    checkout: str | None = None

    def __post_init__(self):
        for setting, zero in (("temperature", "takes the likeliest token"), ("top_k", "leaves all tokens")):
            if getattr(self, setting) < 0:
                raise ValueError(f"generator.{setting}: {getattr(self, setting)} is negative; 0 {zero}")


GENERATOR_CONFIGS: dict[str, type[GeneratorConfig]] = {
    config.name: config
    for config in (*PipelineConfig.__subclasses__(), *GeneratorConfig.__subclasses__())
    if config is not PipelineConfig
}
"""The settings of each generator, by `generator.name`."""
