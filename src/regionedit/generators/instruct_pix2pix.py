"""InstructPix2Pix (Brooks et al. 2023), and Focus on Your Instruction (FoI, Guo & Lin 2024) on top of it.

Without FoI, it repaints the whole picture according to the instruction, and the region only acts in compositing. The
pipeline of diffusers has no regions, so `three_way_sampling` runs its steps, and this file adds what the region changes
between them. With all FoI options off, the picture equals the pipeline's. Equation numbers are FoI's. The sampler is
Euler-ancestral, as the authors of the public checkpoint use it.

Shape letters: B batch, C channels, H W pixels of the pictures as they came, h w pixels of the fitted ones, K
sub-instructions, N text tokens, y x latent cells, r c cells of the attention's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F

from regionedit.attention import NO_SUB_INSTRUCTION, Modulation, Recorder, attached
from regionedit.device import autocast_off
from regionedit.generators.base import TextComparer, Watch, fit_soft_mask, loading
from regionedit.generators.noise import noised
from regionedit.generators.pipelines import UNCHECKED, PipelineGenerator, read_pipeline
from regionedit.generators.three_way_sampling import ThreeWaySampling, embed
from regionedit.records import Instruction
from regionedit.resampling import fit, unfit
from regionedit.token_spans import joint, keyword_spans, sub_instruction_spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from regionedit.config import InstructPix2PixConfig
    from regionedit.records import Captions, EditRequest, Region


class InstructPix2Pix(PipelineGenerator, TextComparer):
    """A frozen eight-channel U-Net, conditioned on the source picture and the instruction, of a
    StableDiffusionInstructPix2PixPipeline with a EulerAncestralDiscreteScheduler."""

    needs = "instruction"

    def __init__(self, pipeline, config: InstructPix2PixConfig):
        super().__init__(pipeline, config)
        self.multiple = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)

    @classmethod
    def load(cls, config: InstructPix2PixConfig) -> Self:
        """Read a StableDiffusionInstructPix2PixPipeline from a folder or hub name."""
        from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

        with loading("generator.path", "InstructPix2Pix pipeline", config.path):
            pipeline = read_pipeline(StableDiffusionInstructPix2PixPipeline, config, **UNCHECKED)
            channels = pipeline.unet.config.in_channels
        if channels != 2 * pipeline.vae.config.latent_channels:
            raise ValueError(
                f"generator.path: the U-Net of {config.path} takes {channels} channels, InstructPix2Pix's takes "
                f"{2 * pipeline.vae.config.latent_channels}; use an instruct-pix2pix checkpoint"
            )
        pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
        return cls(pipeline, config)

    def generate(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        return self._generate(images_BCHW, mask_B1HW, mask_B1HW, [(Instruction(text),) for text in texts], seeds, watch)

    @torch.no_grad()
    def repaint(
        self,
        images_BCHW: Tensor,
        region: Region,
        requests: Sequence[EditRequest],
        captions: Sequence[Captions | None],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        """The generated pictures, before they are composited with the source: BCHW in [0, 1].

        One forward pass per step serves all sub-instructions. During sampling masks are hard: a pixel is edited as soon
        as its value is above 0. If the region has a mask for each sub-instruction, modulation restricts each to its own
        mask; otherwise all share the one mask.

        Raises:
            ValueError: fewer masks than sub-instructions.
        """
        instructions = [request.instructions for request in requests]
        masks_BKHW = region.per_instruction_BKHW
        if masks_BKHW is None:
            masks_BKHW = region.mask_B1HW.expand(-1, max(map(len, instructions)), -1, -1)
        fitted_BChw, placement = fit(images_BCHW, self.size, self.multiple)
        mask_B1hw = fit_soft_mask((region.mask_B1HW > 0).float(), placement, fitted_BChw)
        masks_BKhw = fit_soft_mask((masks_BKHW > 0).float(), placement, fitted_BChw)
        with autocast_off(images_BCHW.device):
            made_BChw = self._generate(fitted_BChw, mask_B1hw, masks_BKhw, instructions, seeds, watch)
        return unfit(made_BChw, placement)

    @torch.no_grad()
    def attend(self, images_BChw: Tensor, requests: Sequence[EditRequest], seeds: Sequence[int]) -> Tensor:
        """How much each cell attends to each sub-instruction's keyword during the first `mask_steps` denoising steps.

        With the same seeds these are the first steps of an edit, before modulation begins.

        Args:
            images_BChw: [0, 1], at a size that is a multiple of `multiple`.

        Returns:
            Attention in [0, 1], [B, K, r, c], averaged over a keyword's tokens; zeros where a request has fewer
            sub-instructions than another.

        Raises:
            ValueError: a keyword is not a word of its instruction or lies beyond the tokenizer's limit; no layer has
                the requested resolution; `mask_steps` is 0 or more steps than run.
        """
        spans = [keyword_spans(request.instructions, self.pipeline.tokenizer) for request in requests]
        with autocast_off(images_BChw.device):
            attention_BNrc = self._read_attention(images_BChw, [request.instruction for request in requests], seeds)
        maps_BKrc = attention_BNrc.new_zeros(len(requests), max(map(len, spans)), *attention_BNrc.shape[-2:])
        for b, keywords in enumerate(spans):
            for k, keyword in enumerate(keywords):
                maps_BKrc[b, k] = attention_BNrc[b, keyword.start : keyword.stop].mean(0)
        return maps_BKrc

    def _predictor(self, fitted_BChw: Tensor, texts: Sequence[str]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """With the source as a condition. If one of two texts is empty, the difference is the relevance map of Watch
        Your Steps (Mirzaei et al. 2023)."""
        unet, vae, scheduler = self.pipeline.unet, self.pipeline.vae, self.pipeline.scheduler
        half = scheduler.config.num_train_timesteps // 2
        alpha = scheduler.alphas_cumprod[half].item()
        context_SND = embed(self.pipeline, texts)
        source_BCyx = vae.encode((fitted_BChw * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mode().to(context_SND)
        clean_BCyx = source_BCyx * vae.config.scaling_factor

        def predict(noise_BCyx: Tensor) -> Tensor:
            unet_input = torch.cat([noised(clean_BCyx, noise_BCyx, alpha), source_BCyx], 1)
            unet_input = unet_input.repeat(len(context_SND) // len(unet_input), 1, 1, 1)
            return unet(unet_input, half, encoder_hidden_states=context_SND).sample

        return clean_BCyx, predict

    def _read_attention(self, images_BChw: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Attention of the first steps, [B, N, r, c]."""
        sampling = ThreeWaySampling(self.pipeline, self.config, images_BChw, texts, seeds)
        steps = self.config.mask_steps
        if not 1 <= steps <= len(sampling.timesteps):
            raise ValueError(
                f"generator.mask_steps: {steps} is outside 1 to {len(sampling.timesteps)}, the steps that run; reading "
                "attention needs at least one"
            )
        latent = tuple(sampling.latent_BCyx.shape[-2:])
        cells = self.config.attention_resolution or max(latent) // 4
        recorder = Recorder(len(texts), latent, tuple(round(side * cells / max(latent)) for side in latent))
        for place in range(steps):
            last = place == steps - 1  # no denoising follows, so only the branch that is read is computed
            with attached(self.pipeline.unet, recorder):
                predicted_SCyx = sampling.predict(place, text_only=last)
            if not last:
                sampling.step(place, sampling.guide(predicted_SCyx))
        return recorder.maps_BNrc()

    def _generate(
        self,
        images_BChw: Tensor,
        mask_B1hw: Tensor,
        masks_BKhw: Tensor,
        instructions: Sequence[Sequence[Instruction]],
        seeds: Sequence[int],
        watch: Watch | None,
    ) -> Tensor:
        """Raw pictures, [B, C, h, w] in [0, 1]; each picture's sub-instructions are joined into one sentence."""
        config, tokenizer = self.config, self.pipeline.tokenizer
        spans = [sub_instruction_spans(own, tokenizer) for own in instructions]  # always, to warn if text is cut
        sampling = ThreeWaySampling(self.pipeline, config, images_BChw, [joint(own) for own in instructions], seeds)
        mask_B1yx = self._latent_masks(mask_B1hw)
        modulation = self._modulation(masks_BKhw, instructions, spans) if config.modulation else None
        trained, total = self.pipeline.scheduler.config.num_train_timesteps, len(sampling.timesteps)
        modulated = range(config.mask_steps, round(config.modulation_until * total))
        disentangled = range(round(config.disentangle_until * total)) if config.disentangle else ()
        if config.latent_blend:
            sampling.put_source_back(0, mask_B1yx)
        for place, timestep in enumerate(sampling.timesteps):
            modulate = modulation is not None and place in modulated
            time = float(timestep) / (trained - 1)
            with attached(self.pipeline.unet, modulation.at(time)) if modulate else nullcontext():
                predicted_SCyx = sampling.predict(place)
            sampling.step(place, sampling.guide(predicted_SCyx, mask_B1yx if place in disentangled else None))
            if config.latent_blend:
                sampling.put_source_back(place + 1, mask_B1yx)
            if watch is not None:
                watch(place + 1, total, partial(sampling.decode, sampling.clean_BCyx))
        return sampling.decode(sampling.latent_BCyx).to(images_BChw)

    def _latent_masks(self, masks_BKhw: Tensor) -> Tensor:
        """Masks at eq. 8's resolution: a latent cell takes the maximum of its pixels, so that thin strokes remain."""
        return F.max_pool2d(masks_BKhw.to(self.pipeline.device).float(), self.pipeline.vae_scale_factor)

    def _modulation(
        self, masks_BKhw: Tensor, instructions: Sequence[Sequence[Instruction]], spans: Sequence[Sequence[range]]
    ) -> Modulation:
        """FoI's M and alpha for these pictures."""
        largest = max(map(len, instructions))
        if masks_BKhw.shape[1] < largest:
            raise ValueError(f"region: {masks_BKhw.shape[1]} masks for {largest} sub-instructions; give one for each")
        owners = [[NO_SUB_INSTRUCTION] * self.pipeline.tokenizer.model_max_length for _ in instructions]
        for owner, own in zip(owners, spans, strict=True):
            for k, span in enumerate(own):
                owner[span.start : span.stop] = [k] * len(span)
        strengths = [[instruction.strength for instruction in own] for own in instructions]
        return Modulation(self._latent_masks(masks_BKhw), owners, strengths)
