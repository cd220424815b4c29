"""InstructPix2Pix (Brooks et al. 2023): repaints the whole picture as an instruction says; the region composes.

The library's own pipeline does the sampling: text and picture guidance, Euler-ancestral by default as the public
checkpoint's authors. It knows no mask, so the mask only decides what is kept of its picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch

from regionedit.generators.base import Generator

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import GeneratorConfig


class InstructPix2Pix(Generator):
    """A frozen eight-channel U-Net that sees the source picture and reads the instruction.

    Args:
        pipeline: a loaded StableDiffusionInstructPix2PixPipeline.
        config: steps and both guidance scales.
    """

    needs = "instruction"

    def __init__(self, pipeline, config: GeneratorConfig):
        self.pipeline = pipeline
        self.config = config
        self.size = config.size
        self.multiple = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            module.eval().requires_grad_(False)
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(cls, config: GeneratorConfig) -> Self:
        """Read a StableDiffusionInstructPix2PixPipeline folder or hub name."""
        from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

        try:
            pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
                config.path,
                revision=config.revision,
                variant=config.variant,
                use_safetensors=True,
                dtype=getattr(torch, config.precision),
                safety_checker=None,
                requires_safety_checker=False,
            )
            channels = pipeline.unet.config.in_channels
        except (OSError, ValueError) as error:
            raise ValueError(
                f"generator.path: no InstructPix2Pix pipeline could be loaded from {config.path!r}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        if channels != 2 * pipeline.vae.config.latent_channels:
            raise ValueError(
                f"generator.path: the U-Net of {config.path} takes {channels} channels, InstructPix2Pix's takes "
                f"{2 * pipeline.vae.config.latent_channels}; use an instruct-pix2pix checkpoint"
            )
        pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
        return cls(pipeline, config)

    def to(self, device: str | torch.device) -> Self:
        self.pipeline.to(device)
        return self

    def generate(self, images_BCHW: Tensor, mask_B1HW: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        made_BCHW = self.pipeline(
            prompt=list(texts),
            image=images_BCHW.to(self.pipeline.device, self.pipeline.unet.dtype),
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            image_guidance_scale=self.config.image_guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
        return made_BCHW.to(images_BCHW)
