"""Adapters from public next-scale models, in a checkout of their code, to `next_scale.ScaleWise`. EXPERIMENTAL.

Switti (Voronov et al. 2024) is conditioned on text, VAR (Tian et al. 2024) on ImageNet classes only. Each adapter is
written for the commit that its `code` names. Neither has been run with the real weights here.

Shape letters: B pictures, C feature channels, H W pixels, y x cells of the full grid, s cells on a scale's side, l
cells of one scale, N text tokens, D width, P width of the pooled text, V codes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regionedit.command_line import one_line
from regionedit.config import NextScaleConfig

VAR_SIDES = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}
"""Sides of the scales of the published VAR checkpoints, by picture size."""

Condition = tuple[Tensor, dict[str, Any]]


def load_checkout(config: NextScaleConfig) -> PublicModel:
    """The model of `generator.checkout` with the weights at `generator.path`, on the CPU.

    Raises:
        ValueError: the folder holds neither model's code or another version of it, or the weights do not fit.
    """
    for file, kind in (("pipeline.py", Switti), ("var.py", VarByClass)):
        if (Path(config.checkout) / "models" / file).is_file():
            return kind.load(config)
    raise ValueError(
        f"generator.checkout: {config.checkout} has neither models/pipeline.py nor models/var.py; clone "
        "https://github.com/yandex-research/switti or https://github.com/FoundationVision/VAR and name its folder"
    )


@contextmanager
def running_code_of(config: NextScaleConfig, code: str) -> Iterator[None]:
    """Inside, the checkout is on `sys.path`; it should be the commit `code`. Its errors become a ValueError that names
    the setting."""
    sys.path.insert(0, config.checkout)
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            f"generator.checkout: {config.checkout} does not fit; it must be {code} with its requirements installed: "
            f"{one_line(error, 200)}"
        ) from error
    except Exception as error:  # hub, safetensors and torch fail in different ways
        raise ValueError(
            f"generator.path: {config.path!r} has no weights of {code} for {config.size} pixels: {one_line(error, 200)}"
        ) from error
    finally:
        sys.path.remove(config.checkout)


class PublicModel:
    """What both models have in common, see `next_scale.ScaleWise`. They ignore the known tokens, and scales must be
    predicted in their order. A condition is the vector of a text or class, and further arguments of every block.

    Attributes:
        code: repository and commit that the adapter is written for.

    Raises:
        ValueError: transformer and autoencoder were built for different scales.
    """

    code: ClassVar[str]

    def __init__(self, network: nn.Module, vae: nn.Module):
        self.network, self.vae = (module.eval().requires_grad_(False) for module in (network, vae))
        self.sides = tuple(network.patch_nums)
        self.image_size = self.sides[-1] * vae.downsample
        if tuple(vae.quantize.v_patch_nums) != self.sides:
            raise ValueError(
                f"generator.size: the transformer generates {self.image_size} pixels, but the autoencoder was built "
                f"for {vae.quantize.v_patch_nums[-1] * vae.downsample}; set it to {self.image_size}"
            )

    def to(self, device: str | torch.device) -> Self:
        self.network.to(device)
        self.vae.to(device)
        return self

    def encode(self, images_BCHW: Tensor) -> list[Tensor]:
        maps = self.vae.img_to_idxBl(images_BCHW * 2 - 1)
        return [tokens_Bl.unflatten(1, (side, side)) for tokens_Bl, side in zip(maps, self.sides, strict=True)]

    def start(self, count: int) -> Tensor:
        return self.network.word_embed.weight.new_zeros(count, self.network.Cvae, self.sides[-1], self.sides[-1])

    def logits(self, scale: int, accumulated_BCyx: Tensor, known_Bss: Tensor, condition: Condition) -> Tensor:
        network, side, (vector_BD, arguments) = self.network, self.sides[scale], condition
        before = sum(earlier**2 for earlier in self.sides[:scale])
        here = slice(before, before + side**2)
        positions_1lD = network.lvl_embed(network.lvl_1L[:, here])
        if getattr(network, "rope", False):
            arguments = arguments | {"freqs_cis": network.freqs_cis[:, here].to(positions_1lD.device)}
        else:
            positions_1lD = positions_1lD + network.pos_1LC[:, here]
        if scale == 0:
            self._cache(getattr(network, "use_ar", True))  # VAR has no such switch and always needs the cache
            x_BlD = vector_BD[:, None] + network.pos_start + positions_1lD
        else:
            pooled_BCss = F.interpolate(accumulated_BCyx, (side, side), mode="area")
            x_BlD = network.word_embed(pooled_BCss.flatten(2).transpose(1, 2)) + positions_1lD
        for block in network.blocks:
            x_BlD = block(x=x_BlD, attn_bias=None, **arguments)
        if scale == len(self.sides) - 1:
            self._cache(False)
        return network.get_logits(x_BlD, vector_BD).unflatten(1, (side, side)).float()

    def accumulate(self, scale: int, accumulated_BCyx: Tensor, tokens_Bss: Tensor) -> Tensor:
        quantizer, scales = self.vae.quantize, len(self.sides)
        entries_BCss = quantizer.embedding(tokens_Bss).permute(0, 3, 1, 2)
        return quantizer.get_next_autoregressive_input(scale, scales, accumulated_BCyx.clone(), entries_BCss)[0]

    def decode(self, accumulated_BCyx: Tensor) -> Tensor:
        return self.vae.fhat_to_img(accumulated_BCyx).float() / 2 + 0.5

    def _cache(self, enabled: bool) -> None:
        """Empty every block's cache of earlier scales, and switch it on or off."""
        for block in self.network.blocks:
            block.attn.kv_caching(enabled)


class Switti(PublicModel):
    """A loaded `SwittiPipeline`, and the checkout's `get_crop_condition`."""

    code = "yandex-research/switti at commit 3b286b5"

    def __init__(self, pipeline, size_condition):
        super().__init__(pipeline.switti, pipeline.vae)
        self.pipeline, self.size_condition = pipeline, size_condition
        for text_encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            text_encoder.eval().requires_grad_(False)

    @classmethod
    def load(cls, config: NextScaleConfig) -> Self:
        """Read a transformer from `generator.path`, folder or hub name. The autoencoder and both text encoders are
        those that the checkout names (`SwittiPipeline.vae_path` and so on)."""
        with running_code_of(config, cls.code):
            pipeline = importlib.import_module("models.pipeline").SwittiPipeline.from_pretrained(
                config.path, torch_dtype=getattr(torch, config.dtype), device="cpu", reso=config.size
            )
            size_condition = importlib.import_module("models.switti").get_crop_condition
        return cls(pipeline, size_condition)

    def to(self, device: str | torch.device) -> Self:
        for text_encoder in (self.pipeline.text_encoder, self.pipeline.text_encoder_2):
            text_encoder.to(device)
            text_encoder.device = device
        self.pipeline.device = device
        return super().to(device)

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> Condition:
        """The texts, by both text encoders, and the size of the training pictures; "" is no text."""
        network, count = self.network, len(texts)
        context_BND, pooled_BP, bias_BN = self.pipeline.encode_prompt(list(texts), encode_null=False)
        size_BD = None
        if network.use_crop_cond:
            trained = [512] * count  # the size of the training pictures, whatever size it generates
            sizes = self.size_condition(trained, trained).to(pooled_BP.device)
            size_BD = network.crop_proj(network.crop_embed(sizes.view(-1)).reshape(count, -1).to(pooled_BP))
        text_BD = network.text_pooler(pooled_BP)
        context = {"context": context_BND, "context_attn_bias": bias_BN, "freqs_cis": None}
        return text_BD, {"cond_BD": text_BD, "crop_cond": size_BD} | context


class VarByClass(PublicModel):
    """VAR, which generates pictures of an ImageNet class: in-painting by class, no editing by text."""

    code = "FoundationVision/VAR at commit 78b9539"

    @classmethod
    def load(cls, config: NextScaleConfig) -> Self:
        """Read `vae.safetensors` and `var.safetensors` from the folder at `generator.path`.

        Raises:
            ValueError: a size that no published VAR has, a precision other than float32, or files that are not VAR's.
        """
        from safetensors.torch import load_file

        if config.size not in VAR_SIDES or config.dtype != "float32":
            raise ValueError(
                f"generator.size: {config.size} in {config.dtype}: VAR generates {' or '.join(map(str, VAR_SIDES))}"
                " pixels, and this adapter supports only float32"
            )
        sides = VAR_SIDES[config.size]
        with running_code_of(config, cls.code):
            vae_kind, kind = importlib.import_module("models.vqvae").VQVAE, importlib.import_module("models.var").VAR
            weights, vae_weights = (load_file(Path(config.path) / f"{name}.safetensors") for name in ("var", "vae"))
            depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
            vae = vae_kind(
                vocab_size=4096, z_channels=32, ch=160, test_mode=True, share_quant_resi=4, v_patch_nums=sides
            )
            network = kind(
                vae_local=vae,
                depth=depth,
                embed_dim=64 * depth,
                num_heads=depth,
                shared_aln=any(name.startswith("shared_ada_lin.") for name in weights),
                attn_l2_norm=True,
                patch_nums=sides,
            )
            vae.load_state_dict(vae_weights)
            network.load_state_dict(weights)
        return cls(network, vae)

    def read(self, texts: Sequence[str], images_BCHW: Tensor, mask_B1HW: Tensor) -> Condition:
        """The classes whose numbers the texts are; "" is no class.

        Raises:
            ValueError: a text that is not the number of a class.
        """
        network = self.network
        for text in texts:
            if text and not (text.strip().isdecimal() and int(text) < network.num_classes):
                raise ValueError(
                    f"target_caption: VAR generates ImageNet's classes and reads no text; give the number of a class, "
                    f"0 to {network.num_classes - 1}, not {text!r}"
                )
        numbers = [int(text) if text else network.num_classes for text in texts]
        class_BD = network.class_emb(torch.tensor(numbers, device=network.lvl_1L.device))
        return class_BD, {"cond_BD": network.shared_ada_lin(class_BD)}
