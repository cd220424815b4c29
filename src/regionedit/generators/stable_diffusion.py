"""Stable Diffusion in-painting with its own denoising loop, which is differentiable: appendix A of the paper.

A diffusers pipeline is not differentiable: it switches gradients off and binarizes masks. So the pipeline only loads
the modules, and the equations are written out here. DDIM without added noise (sigma = 0), trailing
timesteps: the first step starts from pure noise and the last one ends at the clean latent.

Shape letters: B batch, C latent channels, H W pixels, h w latent pixels, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F

from regionedit.device import autocast_off
from regionedit.frozen_conv import freeze_convolutions
from regionedit.generators.base import (
    COMPARED_DRAWS,
    DifferentiableGenerator,
    TextComparer,
    loading,
    noise_seed,
    own_noise,
    relative_difference,
)
from regionedit.generators.noise_schedule import trailing_schedule
from regionedit.generators.tiny_decoder import load_decoder
from regionedit.images import fit, unfit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regionedit.config import GeneratorConfig, SaversConfig


class StableDiffusion(DifferentiableGenerator, TextComparer):
    """A frozen nine-channel in-painting U-Net with its autoencoder and text encoder.

    Args:
        modules: `unet`, `vae`, `text_encoder` and, for another decoder than the autoencoder's, `decoder`; frozen here.
        tokenizer: of the text encoder.
        scheduler: provides the noise schedule and `prediction_type` of the checkpoint.
        config: steps, guidance, blending and the rest.

    Raises:
        ValueError: the U-Net does not take latent, mask and masked source; an unknown prediction type.
    """

    needs = "target_caption"

    def __init__(self, modules: dict[str, nn.Module], tokenizer, scheduler, config: GeneratorConfig):
        self.modules = {name: module.eval().requires_grad_(False) for name, module in modules.items()}
        for module in self.modules.values():  # saves a quarter of the autoencoder's time on a CPU
            module.to(memory_format=torch.channels_last)
        self.unet, self.vae, self.text_encoder = (self.modules[n] for n in ("unet", "vae", "text_encoder"))
        self.decoder = self.modules.get("decoder", self.vae)
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self.config = config
        self.size = config.size
        self._known_BChw: Tensor | None = None
        self.vae_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.multiple = self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.prediction_type = scheduler.config.prediction_type
        self.schedule = trailing_schedule(scheduler.alphas_cumprod, config.steps)
        half = len(scheduler.alphas_cumprod) // 2
        self.half_way = half, float(scheduler.alphas_cumprod[half])
        channels = 2 * self.vae.config.latent_channels + 1
        if self.unet.config.in_channels != channels:
            raise ValueError(
                f"generator.path: the U-Net of {config.path} takes {self.unet.config.in_channels} channels, an "
                f"in-painting one takes {channels}; use an in-painting checkpoint"
            )
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"generator.path: prediction_type {self.prediction_type!r} of {config.path} is unknown")

    @classmethod
    def load(cls, config: GeneratorConfig) -> Self:
        """Read the modules of a StableDiffusionInpaintPipeline from a folder or hub name."""
        from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

        with loading("generator.path", "in-painting pipeline", config.path):
            pipeline = StableDiffusionInpaintPipeline.from_pretrained(
                config.path,
                revision=config.revision,
                variant=config.variant,
                use_safetensors=True,
                dtype=getattr(torch, config.precision),
                safety_checker=None,
                requires_safety_checker=False,
            )
        modules = {name: getattr(pipeline, name) for name in ("unet", "vae", "text_encoder")}
        if config.decoder is not None:
            modules["decoder"] = load_decoder(config, pipeline.vae.config.latent_channels)
        return cls(modules, pipeline.tokenizer, DDIMScheduler.from_config(pipeline.scheduler.config), config)

    def using(self, config: GeneratorConfig) -> Self:
        return type(self)(self.modules, self.tokenizer, self.scheduler, config)

    def to(self, device: str | torch.device) -> Self:
        for module in self.modules.values():
            module.to(device)
        return self

    @torch.no_grad()
    def source_latents(self, images_BCHW: Tensor) -> Tensor:
        """Latents of pictures, encoded as in `propose`, BChw float32."""
        fitted_BChw, _ = fit(images_BCHW.to(self.unet.device), self.size, self.multiple)
        with autocast_off(images_BCHW.device):
            return self._encode(fitted_BChw)

    @contextmanager
    def knowing(self, latents_BChw: Tensor | None) -> Iterator[None]:
        """Inside, use these latents of the sources instead of encoding; `source_latents` made them. None: encode."""
        before, self._known_BChw = self._known_BChw, latents_BChw
        try:
            yield
        finally:
            self._known_BChw = before

    def generate(self, images_BCHW: Tensor, mask_B1HW: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        known_BChw = self._known_BChw
        if _everything(mask_B1HW):  # the source's latents would be multiplied by 0
            height, width = (side // self.vae_factor for side in images_BCHW.shape[-2:])
            known_BChw = images_BCHW.new_zeros(len(images_BCHW), self.vae.config.latent_channels, height, width)
        with self.knowing(known_BChw):
            latent_BChw, _ = self._sample(images_BCHW, mask_B1HW, texts, seeds, gradient_steps=0)
        return self.decode(latent_BChw).to(images_BCHW)

    def latents_with_gradient(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient: str,
        proposal_mask_B1HW: Tensor,
    ) -> Tensor:
        if gradient == "latent":
            latent_BChw, source_BChw = self._sample(images_BCHW, proposal_mask_B1HW, texts, seeds, gradient_steps=0)
            mask_B1hw = self._latent_mask(mask_B1HW)
            return mask_B1hw * latent_BChw + (1 - mask_B1hw) * source_BChw
        steps = 1 if gradient == "last_step" else self.config.gradient_steps or self.config.steps
        return self._sample(images_BCHW, mask_B1HW, texts, seeds, gradient_steps=steps)[0]

    def decode(self, latents_BChw: Tensor) -> Tensor:
        scaled_BChw = (latents_BChw / self.decoder.config.scaling_factor).to(self.decoder.dtype)
        return (self.decoder.decode(scaled_BChw).sample.float() / 2 + 0.5).clamp(0, 1)

    def save(self, savers: SaversConfig) -> None:
        """Apply the memory settings that this generator supports.

        Memory kept for the backward pass at 512 px, as a share of that without settings, counted by
        benchmarks/memory.py. `frozen_convolutions`: KL decoder .62, U-Net .84, at no cost; `checkpoint`: .14 and .20,
        for one more forward pass.
        """
        for module in self.modules.values():
            if savers.frozen_convolutions:
                freeze_convolutions(module)
        parts = {"unet": (self.unet,), "autoencoder": (self.vae, self.decoder)}
        for module in {module for name in savers.checkpoint for module in parts.get(name, ())}:
            module.enable_gradient_checkpointing()
        if savers.compile:
            self.unet.compile(dynamic=False)
            self.decoder.decoder.compile(dynamic=False)

    @torch.no_grad()
    def compare_texts(
        self, images_BCHW: Tensor, first: Sequence[str], second: Sequence[str], seeds: Sequence[int]
    ) -> Tensor:
        """At half of the noise schedule; the U-Net receives nothing of the picture but its noised latent."""
        fitted_BChw, placement = fit(images_BCHW.to(self.unet.device), self.size, self.multiple)
        everything_B1hw = torch.ones_like(fitted_BChw[:, :1])
        latent_mask = self._latent_mask(everything_B1hw)
        with autocast_off(images_BCHW.device):
            clean_BChw = self._encode(fitted_BChw)
            hidden_BChw = self._masked_source(fitted_BChw, clean_BChw, everything_B1hw, latent_mask)
            condition = torch.cat([latent_mask, hidden_BChw], 1)
            context_BLD = self._embed_each([*first, *second])
            timestep, alpha = self.half_way
            total = torch.zeros_like(latent_mask)
            for draw in range(COMPARED_DRAWS):
                noise_BChw = own_noise([noise_seed(seed, draw) for seed in seeds], clean_BChw)
                noised_BChw = alpha**0.5 * clean_BChw + (1 - alpha) ** 0.5 * noise_BChw
                one, other = self._unet_output(noised_BChw, condition, timestep, context_BLD).chunk(2)
                total += (one - other).abs().mean(1, keepdim=True)
        return unfit(relative_difference(total, fitted_BChw), placement).to(images_BCHW)

    def _sample(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient_steps: int,
    ) -> tuple[Tensor, Tensor]:
        """Eq. 14-23: the denoised latent and the source's; the last `gradient_steps` steps are differentiable."""
        images_BCHW, mask_B1HW = images_BCHW.to(self.unet.device), mask_B1HW.to(self.unet.device)
        with torch.no_grad():
            known_BChw = self._known_BChw
            source_BChw = self._encode(images_BCHW) if known_BChw is None else known_BChw.to(images_BCHW)
            context_BLD = self._embed(texts)
            noise_BChw = own_noise(seeds, source_BChw)
        with torch.set_grad_enabled(gradient_steps > 0):
            mask_B1hw = self._latent_mask(mask_B1HW)
            masked_BChw = self._masked_source(images_BCHW, source_BChw, mask_B1HW, mask_B1hw)
        latent_BChw = noise_BChw
        for place, (timestep, alpha, next_alpha) in enumerate(self.schedule):
            with torch.set_grad_enabled(place >= len(self.schedule) - gradient_steps):
                condition = torch.cat([mask_B1hw, masked_BChw], dim=1)
                predicted_BChw = self._predict(latent_BChw, condition, timestep, context_BLD)
                latent_BChw, clean_BChw = self._step(latent_BChw, predicted_BChw, alpha, next_alpha)
                if self.config.blend:
                    latent_BChw = blend(latent_BChw, source_BChw, noise_BChw, mask_B1hw, next_alpha)
            if self._watch is not None:
                self._watch(place + 1, len(self.schedule), partial(self.decode, clean_BChw))
        return latent_BChw, source_BChw

    # ------------------------------------------------------------ eq. 14, 24: pixels to latents and back

    def _encode(self, images_BCHW: Tensor) -> Tensor:
        return self._encode_signed(images_BCHW * 2 - 1)

    def _encode_signed(self, signed_BCHW: Tensor) -> Tensor:
        posterior = self.vae.encode(signed_BCHW.to(self.vae.dtype)).latent_dist
        return posterior.mode().float() * self.vae.config.scaling_factor

    # ------------------------------------------------------------ eq. 15: text

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of the texts, preceded by those of the empty text if guidance needs them."""
        return self._embed_each([*([""] * len(texts) if self.config.guidance != 1 else []), *texts])

    def _embed_each(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of the texts, [texts, L, D]; each string is encoded once."""
        distinct = sorted(set(texts))
        tokens = self.tokenizer(
            distinct,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        embedded = self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]
        return embedded[[distinct.index(text) for text in texts]]

    # ------------------------------------------------------------ eq. 16: input of the U-Net

    def _latent_mask(self, mask_B1HW: Tensor) -> Tensor:
        """A latent pixel takes the maximum of its pixels: thin strokes remain, hard masks stay hard."""
        return F.max_pool2d(mask_B1HW.to(self.unet.device).float(), self.vae_factor)

    def _masked_source(self, images_BCHW: Tensor, source_BChw: Tensor, mask_B1HW: Tensor, mask_B1hw: Tensor) -> Tensor:
        if self.config.masked_image == "latent":
            return (1 - mask_B1hw) * source_BChw
        if _everything(mask_B1HW):  # all masked pictures are equal: encode one
            hidden_1Chw = self._encode_signed(torch.zeros_like(images_BCHW[:1]))
            return hidden_1Chw.expand(len(images_BCHW), -1, -1, -1)
        return self._encode_signed((images_BCHW * 2 - 1) * (1 - mask_B1HW))

    # ------------------------------------------------------------ eq. 17-19: classifier-free guidance in one call

    def _predict(self, latent_BChw: Tensor, condition: Tensor, timestep: int, context_BLD: Tensor) -> Tensor:
        output = self._unet_output(latent_BChw, condition, timestep, context_BLD)
        if len(output) == len(latent_BChw):
            return output
        unconditional, conditional = output.chunk(2)
        return unconditional + self.config.guidance * (conditional - unconditional)

    def _unet_output(self, latent_BChw: Tensor, condition: Tensor, timestep: int, context_BLD: Tensor) -> Tensor:
        """The latents are repeated until they have as many rows as the context: one or several texts for each."""
        unet_input = torch.cat([latent_BChw, condition], dim=1)
        return self.unet(
            unet_input.repeat(len(context_BLD) // len(latent_BChw), 1, 1, 1).to(self.unet.dtype),
            torch.tensor(timestep, device=self.unet.device),
            encoder_hidden_states=context_BLD.to(self.unet.dtype),
        ).sample.float()

    # ------------------------------------------------------------ eq. 20, 21: one DDIM step, sigma = 0

    def _step(
        self, latent_BChw: Tensor, predicted_BChw: Tensor, alpha: float, next_alpha: float
    ) -> tuple[Tensor, Tensor]:
        """The next latent, and the clean latent that the prediction implies."""
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if self.prediction_type == "epsilon":
            epsilon = predicted_BChw
            clean = (latent_BChw - noise * epsilon) / signal
        elif self.prediction_type == "v_prediction":
            clean = signal * latent_BChw - noise * predicted_BChw
            epsilon = signal * predicted_BChw + noise * latent_BChw
        else:
            clean = predicted_BChw
            epsilon = (latent_BChw - signal * clean) / noise
        return next_alpha**0.5 * clean + (1 - next_alpha) ** 0.5 * epsilon, clean


def _everything(mask_B1HW: Tensor) -> bool:
    """Whether the mask covers whole pictures and needs no gradient."""
    return not (mask_B1HW.requires_grad or mask_B1HW.is_meta) and bool((mask_B1HW == 1).all())


# ---------------------------------------------------------------- eq. 22, 23: the source outside the mask


def blend(model_BChw: Tensor, source_BChw: Tensor, noise_BChw: Tensor, mask_B1hw: Tensor, alpha: float) -> Tensor:
    """Eq. 23, with the source noised to the same level by eq. 22; the noise is that of z_T, since sigma = 0."""
    noised_BChw = alpha**0.5 * source_BChw + (1 - alpha) ** 0.5 * noise_BChw
    return mask_B1hw * model_BChw + (1 - mask_B1hw) * noised_BChw
