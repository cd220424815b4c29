"""Masked-token generation (MaskGIT, Chang et al. 2022; MUSE; aMUSEd): predicts the tokens of the region again.

A picture is a map of codebook indices. The indices inside the region become the mask token. A transformer conditioned
on the caption predicts them all at once; the most certain are kept, the others are predicted again. The in-painting
pipeline of diffusers has one share of masked tokens and one random stream for a whole batch. This file uses its modules
and scheduler, but runs a loop with a share and a stream for each sample. For one picture both give the same result.

Shape letters: B batch, C channels, H W pixels, y x tokens, K codebook entries, L text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F

from regionedit.generators.base import Watch, loading
from regionedit.generators.pipelines import PipelineGenerator, read_pipeline, token_ids

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import MaskedTokenConfig

AESTHETIC_SCORE = 6  # diffusers' default; the crop's corner is 0, 0


class MaskedToken(PipelineGenerator):
    """A frozen transformer over the tokens of a VQ autoencoder, with CLIP's text encoder: an AmusedInpaintPipeline."""

    needs = "target_caption"

    def __init__(self, pipeline, config: MaskedTokenConfig):
        super().__init__(pipeline, config)
        self.vqvae, self.transformer, self.text_encoder = pipeline.vqvae, pipeline.transformer, pipeline.text_encoder
        self.factor = pipeline.vae_scale_factor
        self.multiple = self.factor * (2 if self.transformer.config.downsample else 1)
        self.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        self.scheduler.set_timesteps(config.num_inference_steps, (config.temperature, 0))
        self.mask_token = self.scheduler.config.mask_token_id

    @classmethod
    def load(cls, config: MaskedTokenConfig) -> Self:
        """Read an AmusedPipeline from a folder or hub name; the in-painting pipeline has the same components."""
        kind = pipeline_class()
        with loading("generator.path", "masked-token pipeline", config.path):
            pipeline = read_pipeline(kind, config)
        if config.dtype == "float16":
            pipeline.vqvae.float()  # the public one overflows in half precision, as its model card says
        return cls(pipeline, config)

    @torch.no_grad()
    def generate(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        tokens_Byx = self._repredict(images_BCHW, mask_B1HW, texts, seeds, watch)
        return self._decode(tokens_Byx).to(images_BCHW)

    def _repredict(
        self,
        images_BCHW: Tensor,
        mask_B1HW: Tensor,
        texts: Sequence[str],
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        """The token map with the region's tokens predicted again; on the CPU, where all random numbers are drawn."""
        device = self.transformer.device
        source_Byx = self._encode(images_BCHW.to(device)).cpu()
        edited_Byx = self._edited_tokens(mask_B1HW).cpu()
        context = self._embed(texts)
        height, width = images_BCHW.shape[-2:]
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        shares = [edited_yx.sum() / edited_yx.numel() for edited_yx in edited_Byx]
        tokens_Byx = source_Byx.masked_fill(edited_Byx, self.mask_token)
        for place, timestep in enumerate(self.scheduler.timesteps):
            logits_BKyx = self._predict(tokens_Byx.to(device), context, (height, width)).cpu()
            stepped = [
                self.scheduler.step(logits[None], timestep, tokens[None], starting_mask_ratio=share, generator=stream)
                for logits, tokens, share, stream in zip(logits_BKyx, tokens_Byx, shares, streams, strict=True)
            ]
            # The scheduler masks at least one token and, at a high temperature, known ones; outside the region keep all
            tokens_Byx = torch.where(edited_Byx, torch.cat([step.prev_sample for step in stepped]), source_Byx)
            if watch is not None:
                predicted_Byx = torch.where(
                    edited_Byx, torch.cat([s.pred_original_sample for s in stepped]), source_Byx
                )
                watch(place + 1, len(self.scheduler.timesteps), partial(self._decode, predicted_Byx))
        return tokens_Byx

    def _encode(self, images_BCHW: Tensor) -> Tensor:
        """The index of the nearest codebook entry for each cell."""
        latents_BCyx = self.vqvae.encode(images_BCHW.to(self.vqvae.dtype)).latents
        return self.vqvae.quantize(latents_BCyx)[2][2].view(len(latents_BCyx), *latents_BCyx.shape[-2:])

    @torch.no_grad()
    def _decode(self, tokens_Byx: Tensor) -> Tensor:
        channels = self.vqvae.quantize.vq_embed_dim
        codes_BCyx = self.vqvae.quantize.get_codebook_entry(
            tokens_Byx.to(self.vqvae.device), (*tokens_Byx.shape, channels)
        )
        return self.vqvae.decoder(self.vqvae.post_quant_conv(codes_BCyx)).float().clamp(0, 1)

    def _edited_tokens(self, mask_B1HW: Tensor) -> Tensor:
        """A token is predicted if the mask is at least one half in any of its pixels, otherwise it is kept."""
        return F.max_pool2d(mask_B1HW.float(), self.factor)[:, 0] >= 0.5

    def _embed(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Hidden states of the second-to-last layer [texts, L, D] and pooled texts [texts, D]; with guidance, those of
        the empty text come first."""
        prompts = [*([""] * len(texts) if self.config.guidance_scale != 1 else []), *texts]
        distinct = sorted(set(prompts))
        ids = token_ids(self.pipeline.tokenizer, distinct).to(self.text_encoder.device)
        encoded = self.text_encoder(ids, output_hidden_states=True)
        rows = [distinct.index(text) for text in prompts]
        return encoded.hidden_states[-2][rows], encoded.text_embeds[rows]

    def _predict(self, tokens_Byx: Tensor, context: tuple[Tensor, Tensor], size: tuple[int, int]) -> Tensor:
        """Guided logits, BKyx float32; both branches in one call."""
        hidden_BLD, pooled_BD = context
        copies = len(hidden_BLD) // len(tokens_Byx)
        height, width = size
        conditions = torch.tensor([width, height, 0, 0, AESTHETIC_SCORE], device=hidden_BLD.device)
        output = self.transformer(
            tokens_Byx.repeat(copies, 1, 1),
            micro_conds=conditions.to(hidden_BLD.dtype).expand(len(hidden_BLD), -1),
            pooled_text_emb=pooled_BD,
            encoder_hidden_states=hidden_BLD,
        ).float()
        if copies == 1:
            return output
        unconditional, conditional = output.chunk(2)
        return unconditional + self.config.guidance_scale * (conditional - unconditional)


def pipeline_class():
    """diffusers' pipeline class. It is deprecated, so a later release may lack it.

    Raises:
        ValueError: the installed diffusers has no AmusedInpaintPipeline.
    """
    try:
        from diffusers import AmusedInpaintPipeline
    except ImportError as error:
        raise ValueError(
            "generator.name: masked_token needs diffusers' AmusedInpaintPipeline, which this release has removed; "
            "install diffusers 0.42"
        ) from error
    return AmusedInpaintPipeline
