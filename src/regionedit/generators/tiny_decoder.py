"""A small decoder that replaces an autoencoder's own: TAESD, distilled for the latents of Stable Diffusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regionedit.generators.base import loading

if TYPE_CHECKING:
    from torch import nn

    from regionedit.config import StableDiffusionConfig


def load_decoder(config: StableDiffusionConfig, channels: int) -> nn.Module:
    """The AutoencoderTiny at `generator.decoder`, which decodes the same latents.

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
