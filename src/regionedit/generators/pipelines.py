"""Shared by all generators that run the networks of a diffusers pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from regionedit.generators.base import Generator, loading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from regionedit.config import PipelineConfig, StableDiffusionConfig

UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}
"""Arguments that load a pipeline without its safety checker."""


class PipelineGenerator(Generator):
    """A generator that runs the frozen modules of one of diffusers' pipelines."""

    def __init__(self, pipeline, config: PipelineConfig):
        self.pipeline = pipeline
        self.config = config
        self.size = config.size
        for module in modules_of(pipeline):
            module.eval().requires_grad_(False)

    def using(self, config: PipelineConfig) -> Self:
        return type(self)(self.pipeline, config)

    def to(self, device: str | torch.device) -> Self:
        self.pipeline.to(device)
        return self


def read_pipeline(kind: type, config: PipelineConfig, **arguments: Any):
    """A pipeline of one of diffusers' classes, from a folder or hub name, on the CPU.

    Raises ValueError: diffusers' own errors, or the checkpoint lacks weights, which diffusers leaves undefined.
    """
    pipeline = kind.from_pretrained(
        config.path,
        revision=config.revision,
        variant=config.variant,
        use_safetensors=True,
        dtype=getattr(torch, config.dtype),
        **arguments,
    )
    for module in modules_of(pipeline):
        missing = [name for name, weight in module.named_parameters() if weight.is_meta]
        if missing:
            raise ValueError(f"{len(missing)} weights of {type(module).__name__} are missing, such as {missing[0]}")
    return pipeline


def modules_of(pipeline) -> list[nn.Module]:
    """The networks of one of diffusers' pipelines."""
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def token_ids(tokenizer, texts: Sequence[str]) -> Tensor:
    """Ids of the texts, padded or cut to the tokenizer's own length, [texts, L]."""
    length = tokenizer.model_max_length
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


def compile_modules(modules: dict[str, nn.Module]) -> None:
    """`generator.compile`: compile the U-Net and the decoder in use."""
    modules["unet"].compile(dynamic=False)
    modules.get("decoder", modules["vae"]).decoder.compile(dynamic=False)


def load_decoder(config: StableDiffusionConfig, channels: int) -> nn.Module:
    """The AutoencoderTiny (TAESD) at `generator.decoder`, for latents of so many channels.

    Raises:
        ValueError: it could not be loaded, or it decodes other latents; names the field.
    """
    from diffusers import AutoencoderTiny

    with loading("generator.decoder", "AutoencoderTiny", config.decoder):
        decoder = AutoencoderTiny.from_pretrained(
            config.decoder,
            revision=config.decoder_revision,
            use_safetensors=True,
            dtype=getattr(torch, config.dtype),
        )
    if decoder.config.latent_channels != channels:
        raise ValueError(
            f"generator.decoder: {config.decoder} decodes latents of {decoder.config.latent_channels} channels, those "
            f"of {config.path} have {channels}; use the decoder made for it, or null"
        )
    return decoder
