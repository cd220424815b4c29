"""Stable Diffusion in-painting with its own denoising loop, which is differentiable: appendix A of the paper.

A diffusers pipeline is not differentiable: it switches gradients off and binarizes masks. So the pipeline only loads
the modules, and this file writes out the equations: DDIM without added noise (sigma = 0) and with trailing timesteps.
The first step starts from pure noise, and the last one ends at the clean latent.

Shape letters: B batch, C latent channels, H W pixels, h w latent pixels, L text tokens, D text width, S texts a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F

from regionedit.device import autocast_off, send
from regionedit.frozen_conv import freeze_convolutions
from regionedit.generators.base import DifferentiableGenerator, TextComparer, Watch, fit_soft_mask, loading
from regionedit.generators.noise import clean_and_noise, noised, own_noise, trailing_schedule
from regionedit.generators.pipelines import UNCHECKED, compile_modules, load_decoder, read_pipeline, token_ids
from regionedit.resampling import fit, unfit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from regionedit.config import MemoryConfig, StableDiffusionConfig


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

    def __init__(self, modules: dict[str, nn.Module], tokenizer, scheduler, config: StableDiffusionConfig):
        self.modules = {name: module.eval().requires_grad_(False) for name, module in modules.items()}
        for module in self.modules.values():  # saves a quarter of the autoencoder's time on a CPU
            module.to(memory_format=torch.channels_last)
        self.unet, self.vae, self.text_encoder = (self.modules[n] for n in ("unet", "vae", "text_encoder"))
        self.decoder = self.modules.get("decoder", self.vae)
        self.tokenizer = tokenizer
        self.tokenize = partial(token_ids, tokenizer)
        self.scheduler = scheduler
        self.config = config
        self.size = config.size
        self.vae_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.multiple = self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.prediction_type = scheduler.config.prediction_type
        self.schedule = trailing_schedule(scheduler.alphas_cumprod, config.num_inference_steps, config.strength)
        channels = 2 * self.vae.config.latent_channels + 1
        if self.unet.config.in_channels != channels:
            raise ValueError(
                f"generator.path: the U-Net of {config.path} takes {self.unet.config.in_channels} channels, an "
                f"in-painting one takes {channels}; use an in-painting checkpoint"
            )
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"generator.path: prediction_type {self.prediction_type!r} of {config.path} is unknown")

    @classmethod
    def load(cls, config: StableDiffusionConfig) -> Self:
        """Read the modules of a StableDiffusionInpaintPipeline from a folder or hub name."""
        from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

        with loading("generator.path", "in-painting pipeline", config.path):
            pipeline = read_pipeline(StableDiffusionInpaintPipeline, config, **UNCHECKED)
        modules = {name: getattr(pipeline, name) for name in ("unet", "vae", "text_encoder")}
        if config.decoder is not None:
            modules["decoder"] = load_decoder(config, pipeline.vae.config.latent_channels)
        if config.compile:
            compile_modules(modules)
        return cls(modules, pipeline.tokenizer, DDIMScheduler.from_config(pipeline.scheduler.config), config)

    def using(self, config: StableDiffusionConfig) -> Self:
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

    def generate(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
        source_latents_BChw: Tensor | None = None,
        text_ids_BL: Tensor | None = None,
    ) -> Tensor:
        """As for every generator; given `source_latents_BChw`, from `source_latents`, the pictures are not encoded,
        and given `text_ids_BL`, from `tokenize`, the texts are not tokenised."""
        if self.config.strength == 1 and _everything(mask_B1HW):  # the source's latents would be multiplied by 0
            height, width = (side // self.vae_factor for side in images_BCHW.shape[-2:])
            channels = self.vae.config.latent_channels
            source_latents_BChw = images_BCHW.new_zeros(len(images_BCHW), channels, height, width)
        latent_BChw, _ = self._sample(images_BCHW, mask_B1HW, texts, seeds, 0, source_latents_BChw, watch, text_ids_BL)
        return self.decode(latent_BChw).to(images_BCHW)

    def differentiable_latents(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient: Literal["latent", "last_step", "full"],
        proposal_mask_B1HW: Tensor | None = None,
        source_latents_BCyx: Tensor | None = None,
        text_ids_BL: Tensor | None = None,
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        fitted_BCHW, placement = fit(images_BCHW, self.size, self.multiple)
        fitted_mask_B1HW = fit_soft_mask(mask_B1HW, placement, fitted_BCHW)
        conditions_B1HW = fitted_mask_B1HW
        if gradient == "latent" and proposal_mask_B1HW is not None:
            conditions_B1HW = fit_soft_mask(proposal_mask_B1HW, placement, fitted_BCHW)
        all_steps = self.config.gradient_steps or self.config.num_inference_steps
        steps = {"latent": 0, "last_step": 1, "full": all_steps}[gradient]
        device = images_BCHW.device
        with autocast_off(device):
            latent_BChw, source_BChw = self._sample(
                fitted_BCHW, conditions_B1HW, texts, seeds, steps, source_latents_BCyx, text_ids_BL=text_ids_BL
            )
            if gradient == "latent":
                mask_B1hw = self._latent_mask(fitted_mask_B1HW)
                latent_BChw = mask_B1hw * latent_BChw + (1 - mask_B1hw) * source_BChw

        def decode_rows(rows_BChw: Tensor) -> Tensor:
            with autocast_off(device):
                return unfit(self.decode(rows_BChw).to(images_BCHW), placement)

        return latent_BChw, decode_rows

    def decode(self, latents_BChw: Tensor) -> Tensor:
        """Pictures in [0, 1]; each depends only on its own latent."""
        scaled_BChw = (latents_BChw / self.decoder.config.scaling_factor).to(self.decoder.dtype)
        return (self.decoder.decode(scaled_BChw).sample.float() / 2 + 0.5).clamp(0, 1)

    def save_memory(self, memory: MemoryConfig) -> None:
        """Apply the memory settings. Share of the backward pass's memory that remains at 512 px, counted by
        benchmarks/memory.py: `frozen_convolutions` KL decoder .62, U-Net .84, at no cost; `checkpoint` .14 and .20, for
        one more forward pass."""
        for module in self.modules.values():
            if memory.frozen_convolutions:
                freeze_convolutions(module)
        parts = {"unet": (self.unet,), "autoencoder": (self.vae, self.decoder)}
        for module in {module for name in memory.checkpoint for module in parts.get(name, ())}:
            module.enable_gradient_checkpointing()

    def _predictor(self, fitted_BCHW: Tensor, texts: Sequence[str]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The U-Net receives nothing of the picture but its noised latent."""
        fitted_BCHW = fitted_BCHW.to(self.unet.device)
        clean_BChw, context_SLD = self._encode(fitted_BCHW), self._embed(texts)
        everything_B1HW = torch.ones_like(fitted_BCHW[:, :1])
        mask_B1hw = self._latent_mask(everything_B1HW)
        hidden_BChw = self._masked_source(fitted_BCHW, clean_BChw, everything_B1HW, mask_B1hw, True)
        half = len(self.scheduler.alphas_cumprod) // 2
        alpha = float(self.scheduler.alphas_cumprod[half])

        def predict(noise_BChw: Tensor) -> Tensor:
            unet_input = torch.cat([noised(clean_BChw, noise_BChw, alpha), mask_B1hw, hidden_BChw], 1)
            return self._predict(unet_input, half, context_SLD)

        return clean_BChw, predict

    # ------------------------------------------------------------ the region-conditioned sampler: appendix A, eq. 14-23

    def _sample(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        gradient_steps: int,
        source_latents_BChw: Tensor | None = None,
        watch: Watch | None = None,
        text_ids_BL: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The denoised latents and the sources', both BChw; the last `gradient_steps` steps are differentiable."""
        everything = _everything(mask_B1HW)
        images_BCHW, mask_B1HW = images_BCHW.to(self.unet.device), mask_B1HW.to(self.unet.device)
        guided, kind = self.config.guidance_scale != 1, self.prediction_type
        with torch.no_grad():
            source_BChw = source_latents_BChw
            source_BChw = self._encode(images_BCHW) if source_BChw is None else source_BChw.to(images_BCHW)  # eq. 14
            context_SLD = self._embed([*([""] * len(texts) if guided else []), *texts], text_ids_BL)  # eq. 15
            noise_BChw = own_noise(seeds, source_BChw)
        with torch.set_grad_enabled(gradient_steps > 0):
            mask_B1hw = self._latent_mask(mask_B1HW)
            masked_BChw = self._masked_source(images_BCHW, source_BChw, mask_B1HW, mask_B1hw, everything)
        latent_BChw = noise_BChw
        if self.config.strength < 1:
            latent_BChw = noised(source_BChw, noise_BChw, self.schedule[0][1])
        for place, (timestep, alpha, next_alpha) in enumerate(self.schedule):
            with torch.set_grad_enabled(place >= len(self.schedule) - gradient_steps):
                unet_input = torch.cat([latent_BChw, mask_B1hw, masked_BChw], dim=1)  # eq. 16
                predicted = self._predict(unet_input, timestep, context_SLD)  # eq. 17, 18: without and with text
                if guided:
                    without_text, with_text = predicted.chunk(2)
                    predicted = without_text + self.config.guidance_scale * (with_text - without_text)  # eq. 19
                clean_BChw, epsilon_BChw = clean_and_noise(latent_BChw, predicted, alpha, kind)  # eq. 20
                latent_BChw = noised(clean_BChw, epsilon_BChw, next_alpha)  # eq. 21, DDIM with sigma = 0
                if self.config.latent_blend:
                    noised_source_BChw = noised(source_BChw, noise_BChw, next_alpha)  # eq. 22, with the noise of z_T
                    latent_BChw = mask_B1hw * latent_BChw + (1 - mask_B1hw) * noised_source_BChw  # eq. 23
            if watch is not None:
                watch(place + 1, len(self.schedule), partial(self.decode, clean_BChw))
        return latent_BChw, source_BChw

    def _encode(self, images_BCHW: Tensor) -> Tensor:
        return self._encode_signed(images_BCHW * 2 - 1)

    def _encode_signed(self, signed_BCHW: Tensor) -> Tensor:
        posterior = self.vae.encode(signed_BCHW.to(self.vae.dtype)).latent_dist
        return posterior.mode().float() * self.vae.config.scaling_factor

    def _embed(self, texts: Sequence[str], last_ids_BL: Tensor | None = None) -> Tensor:
        """Embeddings of the texts, [texts, L, D]; each string is encoded once.

        Args:
            last_ids_BL: the last B texts as ids; all texts before them are empty.
        """
        if last_ids_BL is not None:
            without, ids_BL = len(texts) - len(last_ids_BL), send(last_ids_BL, self.text_encoder.device)
            if not without:
                return self.text_encoder(ids_BL)[0]
            embedded = self.text_encoder(torch.cat([send(self._empty_1L, ids_BL.device), ids_BL]))[0]
            return torch.cat([embedded[:1].expand(without, -1, -1), embedded[1:]])
        distinct = sorted(set(texts))
        device = self.text_encoder.device
        embedded = self.text_encoder(send(token_ids(self.tokenizer, distinct), device))[0]
        return embedded.index_select(0, send(torch.tensor([distinct.index(text) for text in texts]), device))

    @cached_property
    def _empty_1L(self) -> Tensor:
        return self.tokenize([""])

    def _latent_mask(self, mask_B1HW: Tensor) -> Tensor:
        """A latent pixel takes the maximum of its pixels: thin strokes remain, hard masks stay hard."""
        return F.max_pool2d(mask_B1HW.to(self.unet.device).float(), self.vae_factor)

    def _masked_source(
        self, images_BCHW: Tensor, source_BChw: Tensor, mask_B1HW: Tensor, mask_B1hw: Tensor, everything: bool
    ) -> Tensor:
        """What the U-Net sees of the source, BChw; `generator.masked_image` decides where the mask applies."""
        if self.config.masked_image == "latent":
            return (1 - mask_B1hw) * source_BChw
        if everything:  # all masked pictures are equal: encode one
            return self._encode_signed(torch.zeros_like(images_BCHW[:1])).expand(len(images_BCHW), -1, -1, -1)
        return self._encode_signed((images_BCHW * 2 - 1) * (1 - mask_B1HW))

    def _predict(self, unet_input_BChw: Tensor, timestep: int, context_SLD: Tensor) -> Tensor:
        """The U-Net's output for S texts, [S, C, h, w]; S is a multiple of B, and the input is repeated to match."""
        return self.unet(
            unet_input_BChw.repeat(len(context_SLD) // len(unet_input_BChw), 1, 1, 1).to(self.unet.dtype),
            torch.full((), timestep, device=self.unet.device),
            encoder_hidden_states=context_SLD.to(self.unet.dtype),
        ).sample.float()


def _everything(mask_B1HW: Tensor) -> bool:
    """Whether the mask covers whole pictures and needs no gradient; not looked up on a GPU, which would have to finish
    its work first."""
    return mask_B1HW.device.type == "cpu" and not mask_B1HW.requires_grad and bool((mask_B1HW == 1).all())
