"""Switti (Voronov et al. 2024) from a checkout of its public code, as a model for the next-scale loop. EXPERIMENTAL.

Written against the signatures of yandex-research/switti at commit 3b286b5 and tested on a stand-in that has them. It
has never been run with the real weights here.

Shape letters: B pictures, C channels, H W pixels, y x cells of the full grid, s cells on a scale's side, l cells of one
scale, N text tokens, T text width, D width, V codes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor

CONDITIONED_SIDE = 512
"""Switti is told the size of the pictures that it was trained on, whatever it paints."""


class SwittiText(NamedTuple):
    """What its blocks read: hidden states, the pooled text, 0 or -inf for each token, and the size that it is told."""

    context_BNT: Tensor
    pooled_BD: Tensor
    bias_BN: Tensor
    size_BD: Tensor | None


class Switti:
    """A loaded `SwittiPipeline` behind `next_scale.ScaleWise`. It does not look at the tokens that are known.

    Args:
        pipeline: of the checkout's own class.
        size_condition: the checkout's `get_crop_condition`.

    Raises:
        ValueError: the autoregressive variant, which needs a cache that the loop does not keep; or a transformer and an
            autoencoder of different scales.
    """

    def __init__(self, pipeline, size_condition):
        network, quantizer = pipeline.switti, pipeline.vae.quantize
        if network.use_ar:
            raise ValueError("generator.path: this is Switti AR, which attends to earlier scales; use yresearch/Switti")
        self.pipeline, self.size_condition = pipeline, size_condition
        self.sides = tuple(network.patch_nums)
        self.image_size = self.sides[-1] * pipeline.vae.downsample
        if tuple(quantizer.v_patch_nums) != self.sides:
            raise ValueError(
                f"generator.size: the transformer paints {self.image_size} pixels and the autoencoder was built for "
                f"{quantizer.v_patch_nums[-1] * pipeline.vae.downsample}; set it to {self.image_size}"
            )
        for module in (network, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            module.eval().requires_grad_(False)

    @classmethod
    def load(cls, checkout: str, path: str, size: int, precision: str) -> Self:
        """Import the checkout's `models` and read the weights, on the CPU.

        Args:
            checkout: folder of the user's checkout; it is on `sys.path` during the import only.
            path: of the transformer, folder or hub name. The autoencoder and both text towers are the checkout's own
                hub names (`SwittiPipeline.vae_path` and so on) and must be in the hub's cache on a machine offline.
            size: 512 or 1024, which must be the transformer's.

        Raises:
            ValueError: no checkout there, a package missing that it imports, or weights that it cannot read.
        """
        if not (Path(checkout) / "models" / "pipeline.py").is_file():
            raise ValueError(
                f"generator.checkout: {checkout} has no models/pipeline.py; clone "
                "https://github.com/yandex-research/switti and name its folder"
            )
        sys.path.insert(0, str(checkout))
        try:
            pipeline_class = importlib.import_module("models.pipeline").SwittiPipeline
            size_condition = importlib.import_module("models.switti").get_crop_condition
        except ImportError as error:
            raise ValueError(f"generator.checkout: {checkout} cannot be imported here: {error}") from error
        finally:
            sys.path.remove(str(checkout))
        try:
            pipeline = pipeline_class.from_pretrained(
                path, torch_dtype=getattr(torch, precision), device="cpu", reso=size
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"generator.path: Switti could not be read from {path!r}: {reason}") from error
        return cls(pipeline, size_condition)

    def to(self, device: str | torch.device) -> Self:
        """Move all four networks."""
        pipeline = self.pipeline
        pipeline.switti.to(device)
        pipeline.vae.to(device)
        for text_encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            text_encoder.to(device)
            text_encoder.device = device
        pipeline.device = device
        return self

    def encode(self, images_BCHW: Tensor) -> list[Tensor]:
        """Token maps of all scales, Bss, of pictures in [0, 1]."""
        maps = self.pipeline.vae.img_to_idxBl(images_BCHW * 2 - 1)
        return [tokens_Bl.unflatten(1, (side, side)) for tokens_Bl, side in zip(maps, self.sides, strict=True)]

    def read(self, texts: Sequence[str]) -> SwittiText:
        """Both text towers' states; "" is no text."""
        network = self.pipeline.switti
        context_BNT, pooled_BP, bias_BN = self.pipeline.encode_prompt(list(texts), encode_null=False)
        size_BD = None
        if network.use_crop_cond:
            sides = [CONDITIONED_SIDE] * len(texts)
            told = self.size_condition(sides, sides).to(pooled_BP.device)
            size_BD = network.crop_proj(network.crop_embed(told.view(-1)).reshape(len(texts), -1).to(pooled_BP))
        return SwittiText(context_BNT, network.text_pooler(pooled_BP), bias_BN, size_BD)

    def start(self, count: int) -> Tensor:
        """Zeros, BCyx."""
        network, side = self.pipeline.switti, self.sides[-1]
        return network.word_embed.weight.new_zeros(count, network.Cvae, side, side)

    def logits(self, scale: int, standing_BCyx: Tensor, known_Bss: Tensor, text: SwittiText) -> Tensor:
        """Of every cell of a scale, BssV, in float32."""
        network, side = self.pipeline.switti, self.sides[scale]
        before = sum(earlier**2 for earlier in self.sides[:scale])
        here = slice(before, before + side**2)
        positions_1lD = network.lvl_embed(network.lvl_1L)[:, here]
        if not network.rope:
            positions_1lD = positions_1lD + network.pos_1LC[:, here]
        if scale == 0:
            x_BlD = text.pooled_BD[:, None] + network.pos_start + positions_1lD
        else:
            pooled_BCss = torch.nn.functional.interpolate(standing_BCyx, (side, side), mode="area")
            x_BlD = network.word_embed(pooled_BCss.flatten(2).transpose(1, 2)) + positions_1lD
        rotation = network.freqs_cis[:, here].to(x_BlD.device) if network.rope else None
        for block in network.blocks:
            x_BlD = block(
                x=x_BlD,
                cond_BD=text.pooled_BD,
                attn_bias=None,
                context=text.context_BNT,
                context_attn_bias=text.bias_BN,
                freqs_cis=rotation,
                crop_cond=text.size_BD,
            )
        return network.get_logits(x_BlD, text.pooled_BD).unflatten(1, (side, side)).float()

    def accumulate(self, scale: int, standing_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        """What stands after a scale, BCyx."""
        quantizer = self.pipeline.vae.quantize
        entries_BCss = quantizer.embedding(tokens_Bss).permute(0, 3, 1, 2)
        # it adds in place
        return quantizer.get_next_autoregressive_input(scale, len(self.sides), standing_BCyx.clone(), entries_BCss)[0]

    def decode(self, standing_BCyx: Tensor) -> Tensor:
        """Pictures in [0, 1], BCHW."""
        return self.pipeline.vae.fhat_to_img(standing_BCyx).float() / 2 + 0.5
