"""Adapters from public next-scale models, in a checkout of their code, to `next_scale.ScaleWise`. EXPERIMENTAL.

Switti (Voronov et al. 2024) is conditioned on text, VAR (Tian et al. 2024) on ImageNet classes only. Neither is a
package. The adapters are written against yandex-research/switti at commit 3b286b5 and FoundationVision/VAR at commit
78b9539, and tested on substitutes with the same signatures. They have never been run with the real weights here.

Shape letters: B pictures, C feature channels, H W pixels, y x cells of the full grid, s cells on a scale's side, l
cells of one scale, L cells of a scale and all before it, N text tokens, T text width, D width, V codes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regionedit.config import NextScaleConfig

CONDITIONED_SIDE = 512
"""The picture size that Switti is conditioned on: the one of its training, whatever size it generates."""

VAR_SIDES = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}
"""Sides of the scales of the published VAR checkpoints, by picture size."""


def load_checkout(config: NextScaleConfig) -> Switti | VarByClass:
    """The model of `generator.checkout` with the weights at `generator.path`, on the CPU.

    Raises:
        ValueError: the folder is neither checkout, it cannot be imported, or the weights do not fit.
    """
    models = Path(config.checkout) / "models"
    for file, kind in (("pipeline.py", Switti), ("var.py", VarByClass)):
        if (models / file).is_file():
            return kind.load(config)
    raise ValueError(
        f"generator.checkout: {config.checkout} has neither models/pipeline.py nor models/var.py; clone "
        "https://github.com/yandex-research/switti or https://github.com/FoundationVision/VAR and name its folder"
    )


def modules_of(checkout: str, *names: str) -> list[ModuleType]:
    """Import modules of a checkout, whose folder is on `sys.path` only during the import.

    Raises:
        ValueError: one of them needs a package that is not installed.
    """
    sys.path.insert(0, str(checkout))
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise ValueError(f"generator.checkout: {checkout} cannot be imported: {error}") from error
    finally:
        sys.path.remove(str(checkout))


class _PublicTokens:
    """The autoencoder of both models, as the loop uses it; `sides` are the cells on the side of each scale."""

    def __init__(self, vae: nn.Module, sides: Sequence[int]):
        self.vae, self.sides = vae.eval().requires_grad_(False), tuple(sides)
        self.image_size = self.sides[-1] * vae.downsample

    def encode(self, images_BCHW: Tensor) -> list[Tensor]:
        """Token maps of all scales, Bss, of pictures in [0, 1]."""
        maps = self.vae.img_to_idxBl(images_BCHW * 2 - 1)
        return [tokens_Bl.unflatten(1, (side, side)) for tokens_Bl, side in zip(maps, self.sides, strict=True)]

    def accumulate(self, scale: int, accumulated_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        """The accumulated features after a scale, BCyx."""
        quantizer, scales = self.vae.quantize, len(self.sides)
        entries_BCss = quantizer.embedding(tokens_Bss).permute(0, 3, 1, 2)
        return quantizer.get_next_autoregressive_input(scale, scales, accumulated_BCyx.clone(), entries_BCss)[0]

    def decode(self, accumulated_BCyx: Tensor) -> Tensor:
        """Pictures in [0, 1], BCHW."""
        return self.vae.fhat_to_img(accumulated_BCyx).float() / 2 + 0.5


class SwittiText(NamedTuple):
    """The condition of its blocks: hidden states, pooled text, a bias of 0 or -inf per token, and the embedded size."""

    context_BNT: Tensor
    pooled_BD: Tensor
    bias_BN: Tensor
    size_BD: Tensor | None


class Switti(_PublicTokens):
    """A loaded `SwittiPipeline`. It ignores the known tokens.

    Args:
        pipeline: an instance of the checkout's own class.
        size_condition: the checkout's `get_crop_condition`.

    Raises:
        ValueError: the autoregressive variant, which needs a cache that the loop does not keep; or a transformer and an
            autoencoder of different scales.
    """

    def __init__(self, pipeline, size_condition):
        network, quantizer = pipeline.switti, pipeline.vae.quantize
        super().__init__(pipeline.vae, network.patch_nums)
        if network.use_ar:
            raise ValueError("generator.path: this is Switti AR, which attends to earlier scales; use yresearch/Switti")
        if tuple(quantizer.v_patch_nums) != self.sides:
            raise ValueError(
                f"generator.size: the transformer generates {self.image_size} pixels, but the autoencoder was built "
                f"for {quantizer.v_patch_nums[-1] * pipeline.vae.downsample}; set it to {self.image_size}"
            )
        self.pipeline, self.size_condition = pipeline, size_condition
        for module in (network, pipeline.text_encoder, pipeline.text_encoder_2):
            module.eval().requires_grad_(False)

    @classmethod
    def load(cls, config: NextScaleConfig) -> Self:
        """Read a transformer from `generator.path`, folder or hub name. The autoencoder and both text encoders are
        those that the checkout names (`SwittiPipeline.vae_path` and so on)."""
        pipelines, conditions = modules_of(config.checkout, "models.pipeline", "models.switti")
        try:
            pipeline = pipelines.SwittiPipeline.from_pretrained(
                config.path, torch_dtype=getattr(torch, config.dtype), device="cpu", reso=config.size
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"generator.path: no Switti could be read from {config.path!r}: {reason}") from error
        return cls(pipeline, conditions.get_crop_condition)

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

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> SwittiText:
        """Hidden states of both text encoders; "" is no text."""
        network = self.pipeline.switti
        context_BNT, pooled_BP, bias_BN = self.pipeline.encode_prompt(list(texts), encode_null=False)
        size_BD = None
        if network.use_crop_cond:
            sides = [CONDITIONED_SIDE] * len(texts)
            size = self.size_condition(sides, sides).to(pooled_BP.device)
            size_BD = network.crop_proj(network.crop_embed(size.view(-1)).reshape(len(texts), -1).to(pooled_BP))
        return SwittiText(context_BNT, network.text_pooler(pooled_BP), bias_BN, size_BD)

    def start(self, count: int) -> Tensor:
        """Zeros, BCyx."""
        network, side = self.pipeline.switti, self.sides[-1]
        return network.word_embed.weight.new_zeros(count, network.Cvae, side, side)

    def logits(self, scale: int, accumulated_BCyx: Tensor, known_Bss: Tensor, text: SwittiText) -> Tensor:
        """Logits of every cell of a scale, BssV, in float32."""
        network, side = self.pipeline.switti, self.sides[scale]
        before = sum(earlier**2 for earlier in self.sides[:scale])
        here = slice(before, before + side**2)
        positions_1lD = network.lvl_embed(network.lvl_1L)[:, here]
        if not network.rope:
            positions_1lD = positions_1lD + network.pos_1LC[:, here]
        if scale == 0:
            x_BlD = text.pooled_BD[:, None] + network.pos_start + positions_1lD
        else:
            pooled_BCss = F.interpolate(accumulated_BCyx, (side, side), mode="area")
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


class VarByClass(_PublicTokens):
    """VAR, which generates pictures of an ImageNet class: in-painting by class, no editing by text.

    It attends to all earlier scales. Instead of a cache, the accumulated features after every scale are stacked in the
    channels, and each scale is predicted together with all before it, which takes two to three times the work.

    Args:
        network: the checkout's `VAR`.
        vae: the checkout's `VQVAE`.
    """

    def __init__(self, network: nn.Module, vae: nn.Module):
        super().__init__(vae, network.patch_nums)
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, config: NextScaleConfig) -> Self:
        """Read `vae.safetensors` and `var.safetensors` from the folder at `generator.path`.

        Raises:
            ValueError: a size that no published VAR has, a precision other than float32, or files that are not VAR's.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if config.size not in VAR_SIDES or config.dtype != "float32":
            raise ValueError(
                f"generator.size: {config.size} in {config.dtype}: VAR generates {' or '.join(map(str, VAR_SIDES))}"
                " pixels, and this adapter supports only float32"
            )
        transformers, autoencoders = modules_of(config.checkout, "models.var", "models.vqvae")
        sides = VAR_SIDES[config.size]
        try:
            stored, tokens = (load_file(Path(config.path) / f"{name}.safetensors") for name in ("var", "vae"))
            depth = 1 + max(int(name.split(".")[1]) for name in stored if name.startswith("blocks."))
            vae = autoencoders.VQVAE(
                vocab_size=4096, z_channels=32, ch=160, test_mode=True, share_quant_resi=4, v_patch_nums=sides
            )
            network = transformers.VAR(
                vae_local=vae,
                depth=depth,
                embed_dim=64 * depth,
                num_heads=depth,
                shared_aln=any(name.startswith("shared_ada_lin.") for name in stored),
                attn_l2_norm=True,
                patch_nums=sides,
            )
            vae.load_state_dict(tokens)
            network.load_state_dict(stored)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"generator.path: {config.path!r} has no vae.safetensors and var.safetensors of VAR for {config.size} "
                f"pixels: {' '.join(str(error).split())[:200]}"
            ) from error
        return cls(network, vae)

    def to(self, device: str | torch.device) -> Self:
        """Move both networks."""
        self.network.to(device)
        self.vae.to(device)
        return self

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
        """Class numbers, B; "" becomes the number that stands for no class.

        Raises:
            ValueError: a text that is not the number of a class.
        """
        classes = self.network.num_classes
        for text in texts:
            if text and not (text.strip().isdecimal() and int(text) < classes):
                raise ValueError(
                    f"target_caption: VAR generates ImageNet's classes and reads no text; give the number of a class, "
                    f"0 to {classes - 1}, not {text!r}"
                )
        numbers = [int(text) if text else classes for text in texts]
        return torch.tensor(numbers, device=self.network.lvl_1L.device)

    def start(self, count: int) -> Tensor:
        """Zeros, BCyx with the channels repeated for every scale."""
        network, side = self.network, self.sides[-1]
        return network.word_embed.weight.new_zeros(count, network.Cvae * len(self.sides), side, side)

    def logits(self, scale: int, accumulated_BCyx: Tensor, known_Bss: Tensor, classes_B: Tensor) -> Tensor:
        """Logits of every cell of a scale, BssV."""
        network, side = self.network, self.sides[scale]
        class_BD = network.class_emb(classes_B)
        parts = [class_BD[:, None] + network.pos_start]
        for later, before_BCyx in zip(self.sides[1 : scale + 1], accumulated_BCyx.split(network.Cvae, 1), strict=False):
            pooled_BCss = F.interpolate(before_BCyx, (later, later), mode="area")
            parts.append(network.word_embed(pooled_BCss.flatten(2).transpose(1, 2)))
        x_BLD = torch.cat(parts, 1)
        length = x_BLD.shape[1]
        x_BLD = x_BLD + network.lvl_embed(network.lvl_1L[:, :length]) + network.pos_1LC[:, :length]
        shared = network.shared_ada_lin(class_BD)
        for block in network.blocks:
            x_BLD = block(x=x_BLD, cond_BD=shared, attn_bias=network.attn_bias_for_masking[:, :, :length, :length])
        return network.get_logits(x_BLD[:, -(side**2) :], class_BD).unflatten(1, (side, side)).float()

    def accumulate(self, scale: int, accumulated_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        """The accumulated features after every scale up to this one; later scales hold a copy of the newest."""
        parts = list(accumulated_BCyx.split(self.network.Cvae, 1))
        newest_BCyx = super().accumulate(scale, parts[scale], tokens_Bss)
        return torch.cat([*parts[:scale], *[newest_BCyx] * (len(parts) - scale)], 1)

    def decode(self, accumulated_BCyx: Tensor) -> Tensor:
        """Pictures in [0, 1], BCHW, from the features of the last scale."""
        return super().decode(accumulated_BCyx[:, -self.network.Cvae :])
