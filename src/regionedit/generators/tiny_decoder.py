"""A small decoder in place of an autoencoder's own: TAESD, distilled for the latents of Stable Diffusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regionedit.generators.base import loading

if TYPE_CHECKING:
    from torch import nn

    from regionedit.config import GeneratorConfig


def load_decoder(config: GeneratorConfig, channels: int) -> nn.Module:
    """The AutoencoderTiny of `generator.decoder`, which knows the same latents.

    Raises:
        ValueError: nothing loadable there, or one of other latents; names the field.
    """
    from diffusers import AutoencoderTiny

    with loading("generator.decoder", "AutoencoderTiny", config.decoder):
        decoder = AutoencoderTiny.from_pretrained(
            config.decoder,
            revision=config.decoder_revision,
            use_safetensors=True,
            dtype=getattr(torch, config.precision),
        )
    if decoder.config.latent_channels != channels:
        raise ValueError(
            f"generator.decoder: {config.decoder} decodes latents of {decoder.config.latent_channels} channels, those "
            f"of {config.path} have {channels}; use the one made for it, or null"
        )
    return decoder
