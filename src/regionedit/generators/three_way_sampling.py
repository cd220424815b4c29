"""InstructPix2Pix's denoising with the modules of diffusers' pipeline, one step at a time.

The pipeline's own call takes no mask and applies guidance in one fixed way. This class does the same arithmetic with
the same noise, so without changes the picture equals the pipeline's. The generator makes its changes between steps.

Shape letters: B batch, C channels, H W pixels, y x latent cells, N text tokens, D text width. S samples of a guidance
batch: B with text and picture (I, T), then B with the picture alone (I, 0), then B with neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from regionedit.generators.pipelines import token_ids

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import InstructPix2PixConfig


class ThreeWaySampling:
    """Denoises B pictures from noise to a clean latent.

    Args:
        pipeline: a StableDiffusionInstructPix2PixPipeline with a EulerAncestralDiscreteScheduler; its scheduler
            stores the current step, so one sampling must end before the next begins.
        images_BCHW: [0, 1], at a size that is a multiple of what the U-Net needs.
        seeds: all of a picture's noise comes from its own seed, so its batch changes nothing.

    Attributes:
        latent_BCyx: the latent after the last step.
        clean_BCyx: the clean latent as the last step estimated it.
        source_BCyx: the source's clean latent.
        timesteps: of the steps that run.
    """

    def __init__(
        self, pipeline, config: InstructPix2PixConfig, images_BCHW: Tensor, texts: Sequence[str], seeds: Sequence[int]
    ):
        self.unet, self.vae, self.scheduler = pipeline.unet, pipeline.vae, pipeline.scheduler
        self.config = config
        self.context_SND = self._contexts(pipeline, texts)
        device, dtype = self.unet.device, self.context_SND.dtype
        encoded_BCyx = self.vae.encode((images_BCHW * 2 - 1).to(device, self.vae.dtype)).latent_dist.mode().to(dtype)
        self.source_BCyx = encoded_BCyx * self.vae.config.scaling_factor
        # The U-Net receives the source's latent unscaled, as the autoencoder returns it; without a picture, zeros.
        self.condition_SCyx = encoded_BCyx
        if self.config.guided:
            self.condition_SCyx = torch.cat([encoded_BCyx, encoded_BCyx, torch.zeros_like(encoded_BCyx)])
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (1, *encoded_BCyx.shape[1:])
        drawn = [torch.randn(shape, generator=generator, dtype=dtype) for generator in self.generators]
        self.noise_BCyx = torch.cat(drawn).to(device)
        self.scheduler.set_timesteps(config.num_inference_steps, device=device)
        self.skipped = config.num_inference_steps - max(1, round(config.num_inference_steps * config.strength))
        self.scheduler.set_begin_index(self.skipped)
        self.timesteps = self.scheduler.timesteps[self.skipped :]
        if config.strength < 1:
            self.latent_BCyx = self.noised_source(0)
        else:
            self.latent_BCyx = self.noise_BCyx * self.scheduler.init_noise_sigma

    def noised_source(self, place: int) -> Tensor:
        """The source's latent at the noise level before step `place`; after the last step, clean. [B, C, y, x]"""
        return self.source_BCyx + self.scheduler.sigmas[self.skipped + place].to(self.noise_BCyx) * self.noise_BCyx

    def predict(self, place: int, text_only: bool = False) -> Tensor:
        """The noise that the U-Net predicts for all branches, [S, C, y, x], or for (I, T) alone."""
        context_SND = self.context_SND[: len(self.latent_BCyx)] if text_only else self.context_SND
        scaled_BCyx = self.scheduler.scale_model_input(self.latent_BCyx, self.timesteps[place])
        copies = len(context_SND) // len(scaled_BCyx)
        unet_input = torch.cat([scaled_BCyx.repeat(copies, 1, 1, 1), self.condition_SCyx[: len(context_SND)]], 1)
        return self.unet(unet_input, self.timesteps[place], encoder_hidden_states=context_SND).sample

    def guide(self, predicted_SCyx: Tensor, mask_B1yx: Tensor | None = None) -> Tensor:
        """FoI's eq. 1 or, with a mask, eq. 9: text guidance only inside the mask. [B, C, y, x]"""
        if not self.config.guided:
            return predicted_SCyx
        both_BCyx, picture_BCyx, neither_BCyx = predicted_SCyx.chunk(3)
        text_BCyx = self.config.guidance_scale * (both_BCyx - picture_BCyx)
        if mask_B1yx is not None:
            text_BCyx = text_BCyx * mask_B1yx.to(text_BCyx)
        return neither_BCyx + text_BCyx + self.config.image_guidance_scale * (picture_BCyx - neither_BCyx)

    def step(self, place: int, guided_BCyx: Tensor) -> None:
        """One Euler-ancestral step; its noise is drawn from each picture's own generator."""
        stepped = self.scheduler.step(guided_BCyx, self.timesteps[place], self.latent_BCyx, generator=self.generators)
        self.latent_BCyx, self.clean_BCyx = stepped.prev_sample, stepped.pred_original_sample

    def put_source_back(self, place: int, mask_B1yx: Tensor) -> None:
        """Outside the mask, replace the latent by the source's, at the noise level before step `place`.

        Every step uses the initial noise; any noise would do, since nothing outside is kept from step to step.
        """
        self.latent_BCyx = torch.where(mask_B1yx > 0, self.latent_BCyx, self.noised_source(place))

    def decode(self, latent_BCyx: Tensor) -> Tensor:
        """A latent as pictures, [B, C, H, W] in [0, 1]."""
        latent_BCyx = (latent_BCyx / self.vae.config.scaling_factor).to(self.vae.dtype)
        return (self.vae.decode(latent_BCyx).sample / 2 + 0.5).clamp(0, 1)

    def _contexts(self, pipeline, texts: Sequence[str]) -> Tensor:
        """[S, N, D]: the texts; with guidance, then the empty text twice for every text."""
        embedded = embed(pipeline, [*texts, ""])
        if not self.config.guided:
            return embedded[:-1]
        return torch.cat([embedded[:-1], embedded[-1:].expand(2 * len(texts), -1, -1)])


def embed(pipeline, texts: Sequence[str]) -> Tensor:
    """Embeddings of these texts for the U-Net's cross-attention, [B, N, D]."""
    encoder = pipeline.text_encoder
    return encoder(token_ids(pipeline.tokenizer, texts).to(encoder.device))[0].to(pipeline.unet.dtype)
