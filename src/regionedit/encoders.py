"""The two frozen encoders: CLIP for pictures and captions, T5 for instructions.

Shape letters: B batch, C channels, H W pixels, N patches (row by row), D CLIP's projection width, M instruction tokens.
Frozen means: always in evaluation mode, even after `train()`, and no parameter requires a gradient. `encode_image` is
still differentiable with respect to its pictures. Autocast is off inside, so the configured precision alone decides.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from regionedit.command_line import one_line
from regionedit.config import EncodersConfig
from regionedit.device import autocast_off, pick_dtype, rounding, send
from regionedit.resampling import resample


@dataclass(frozen=True)
class ImageFeatures:
    """CLIP features of B pictures: projected into the space shared with text, not normalised, float32.

    Args:
        global_BD: the class token, I_ori or I_res.
        patches_BND: every patch, F_img or F_res.
    """

    global_BD: Tensor
    patches_BND: Tensor


class Frozen(nn.Module):
    """A network that is never trained: call `freeze` once it is built; `train()` does nothing."""

    def freeze(self) -> Self:
        self.requires_grad_(False)
        return self.train()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class FrozenCLIP(Frozen):
    """An open_clip model with a ViT; its patch features lie in the same space as its global feature.

    Args:
        model: an open_clip CLIP whose `visual` is a VisionTransformer with a class token.
        tokenizer: turns texts into token ids [B, context].

    Attributes:
        image_size: side of the square that pictures are stretched to, in pixels.
        grid: patches a side.
        dim: width D of the shared space; 768 for ViT-L/14.
    """

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        visual = model.visual
        (height, width), (rows, columns) = visual.image_size, visual.grid_size
        if height != width or rows != columns:
            raise ValueError(
                f"encoders.clip: this CLIP takes pictures of {height}x{width}; choose one with square pictures"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.image_size, self.grid, self.dim = height, rows, visual.output_dim
        preprocess = visual.preprocess_cfg
        self.register_buffer("mean_C11", torch.tensor(preprocess["mean"])[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(preprocess["std"])[:, None, None], persistent=False)
        texts = [w for name, w in model.named_parameters() if w.ndim == 2 and not name.startswith("visual.")]
        # In a tuple, because torch would register a bare weight a second time.
        self._coarsest = (max(texts, key=lambda weight: torch.finfo(weight.dtype).eps),)
        self.freeze()

    @classmethod
    def load(
        cls,
        name: str,
        pretrained: str | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        text_dtype: Literal["float32", "bfloat16"] | None = None,
    ) -> FrozenCLIP:
        """Load a CLIP with open_clip, on the CPU.

        Args:
            name: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or an architecture of open_clip such as ViT-L-14.
            pretrained: weights' tag or file, for an architecture name only.
            dtype: of the weights; features are float32 in any case.
            text_dtype: of the weights of the text tower; None: as `dtype`.

        Raises ValueError: no such model, no weights, or not a ViT with a class token; the message names the field.
        """
        import open_clip
        from open_clip.transformer import VisionTransformer

        mixed = text_dtype not in (None, dtype)  # then both towers start from float32 weights
        known = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
        try:
            model = open_clip.create_model(
                name,
                pretrained=pretrained,
                precision="bf16" if dtype == "bfloat16" and not mixed else "fp32",
                # open_clip only warns when the weights were trained with another activation than the architecture has.
                force_quick_gelu=bool(known.get("quick_gelu")),
                require_pretrained=True,
            )
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # open_clip and safetensors fail in many ways; the message gives the name
            raise ValueError(
                f"encoders.clip: cannot load {name!r} with encoders.clip_pretrained {pretrained!r}: "
                f"{one_line(error, 200)}"
            ) from error
        visual = model.visual
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None or visual.pool_type != "tok":
            raise ValueError(
                f"encoders.clip: {name!r} has no ViT with a class token, whose patches can be projected into the space "
                "of texts; take one such as ViT-L-14"
            )
        if mixed:
            for parameter_name, weight in model.named_parameters():
                own = dtype if parameter_name.startswith("visual.") else text_dtype
                weight.data = weight.data.to(getattr(torch, own))
        return cls(model, tokenizer)

    def compile(self) -> None:
        """Compile the image tower layer by layer: all layers share one compiled graph, so the first step waits less."""
        for layer in self.model.visual.transformer.resblocks:
            layer.compile(dynamic=False)

    @property
    def device(self) -> torch.device:
        return self.mean_C11.device

    @property
    def image_rounding(self) -> float:
        """Relative rounding of the products behind `encode_image` on the current device, see `device.rounding`."""
        return rounding(self.model.visual.conv1.weight.dtype, self.device)

    @property
    def text_rounding(self) -> float:
        """The same for `encode_text`, by its coarsest weight."""
        return rounding(self._coarsest[0].dtype, self.device)

    def stretch(self, images_BCHW: Tensor) -> Tensor:
        """Pictures in [0, 1] stretched to CLIP's square; not cropped, because the patch grid must cover all of them."""
        return resample(images_BCHW, (self.image_size, self.image_size))

    def preprocess(self, images_BCHW: Tensor) -> Tensor:
        """Stretch to CLIP's square and normalise, differentiably; the same for source and generated pictures."""
        images_BCHW = self.stretch(images_BCHW.to(self.device, torch.float32))
        return (images_BCHW - self.mean_C11) / self.std_C11

    def encode_image(self, images_BCHW: Tensor) -> ImageFeatures:
        """Global and patch features of pictures in [0, 1] of any size; differentiable with respect to them."""
        visual = self.model.visual
        with autocast_off(self.device):
            pixels = self.preprocess(images_BCHW).to(visual.conv1.weight.dtype)
            # ViT-L/14's patches are 1024 wide; ln_post and the class token's projection map them into the shared space.
            outputs = visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True, output_fmt="NLC")
            patches_BND = outputs["image_intermediates"][0] @ visual.proj
            return ImageFeatures(outputs["image_features"].float(), patches_BND.float())

    def checkpoint(self) -> None:
        """Activation checkpointing in the image tower: keep only the activations between layers and recompute the
        others in the backward pass."""
        self.model.visual.set_grad_checkpointing(True)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], ids_BL: Tensor | None = None) -> Tensor:
        """Text embeddings T_o or T_e, [B, D] float32, not normalised; texts beyond the context length are cut.

        Args:
            ids_BL: the texts as `tokenizer` makes them, if they are tokenised already.
        """
        ids_BL = self.tokenizer(list(texts)) if ids_BL is None else ids_BL
        with autocast_off(self.device):
            return self.model.encode_text(send(ids_BL, self.device)).float()


class FrozenInstructionEncoder(Frozen):
    """A T5 encoder with its tokenizer.

    Args:
        model: a transformers T5EncoderModel.
        tokenizer: its tokenizer.
        max_tokens: longer instructions are cut, with a warning.

    Attributes:
        dim: width of a token's feature, 768 for FLAN-T5-base.
    """

    def __init__(self, model: nn.Module, tokenizer, max_tokens: int):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.dim = model.config.d_model
        self.freeze()

    @classmethod
    def load(
        cls,
        name: str,
        revision: str | None = None,
        max_tokens: int = 77,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> FrozenInstructionEncoder:
        """Load a folder or hub name, on the CPU.

        Raises ValueError: no such model, or not a T5 encoder; the message names the field.
        """
        from transformers import AutoTokenizer, T5EncoderModel

        try:
            model, info = T5EncoderModel.from_pretrained(
                name, revision=revision, dtype=getattr(torch, dtype), output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        except Exception as error:  # transformers and safetensors fail in many ways; the message gives the name
            raise ValueError(f"encoders.instruction: cannot load a T5 from {name!r}: {one_line(error, 200)}") from error
        if info["missing_keys"]:
            # transformers would use random weights in their place.
            missing = min(info["missing_keys"])
            raise ValueError(f"encoders.instruction: {name!r} holds no T5 encoder, {missing} is missing")
        return cls(model, tokenizer, max_tokens)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.no_grad()
    def encode(self, instructions: Sequence[str], tokens: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Features F_ins [B, M, D] float32 and their mask [B, M] bool, True for real tokens.

        M is the length of the batch's longest instruction. Features of padding are undefined: always use the mask.

        Args:
            tokens: of the instructions, from `instruction_tokens`, if they are tokenised already.
        """
        tokens = tokens or instruction_tokens(self.tokenizer, self.max_tokens, instructions)
        ids_BM, mask_BM = (send(each, self.device) for each in tokens)
        mask_BM = mask_BM.bool()
        with autocast_off(self.device):
            # Given as what is added to the attention: transformers would look on the device whether [B, M] is all ones.
            added_B11M = (~mask_BM)[:, None, None].to(self.model.dtype) * torch.finfo(self.model.dtype).min
            outputs = self.model(input_ids=ids_BM, attention_mask=added_B11M)
        return outputs.last_hidden_state.float(), mask_BM


def instruction_tokens(tokenizer, max_tokens: int, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids [B, M] and their mask [B, M] bool, True for real tokens; an instruction that is cut gives a warning."""
    instructions = list(instructions)
    tokens = tokenizer(instructions, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    mask_BM = tokens["attention_mask"].bool()
    for text in (instructions[i] for i in (mask_BM.sum(1) >= max_tokens).nonzero().flatten().tolist()):
        length = len(tokenizer(text)["input_ids"])
        if length > max_tokens:
            warnings.warn(
                f"instruction of {length} tokens cut to {max_tokens} (encoders.max_instruction_tokens): "
                f"{text[:60]!r}...",
                stacklevel=2,
            )
    return tokens["input_ids"], mask_BM


def load_encoders(
    config: EncodersConfig, device: str | torch.device = "cpu"
) -> tuple[FrozenCLIP, FrozenInstructionEncoder]:
    """Both encoders of a configuration, on a device.

    Raises ValueError: one cannot be loaded, or their widths differ; the message names the field.
    """
    dtype, text_dtype = pick_dtype(config.dtype, device), pick_dtype(config.dtype_of_texts, device)
    clip = FrozenCLIP.load(config.clip, config.clip_pretrained, dtype, text_dtype)
    instruction = FrozenInstructionEncoder.load(
        config.instruction, config.instruction_revision, config.max_instruction_tokens, text_dtype
    )
    if config.compile:
        clip.compile()
    if clip.dim != instruction.dim:
        raise ValueError(
            f"encoders.instruction: {config.instruction!r} is {instruction.dim} wide, but patches of encoders.clip "
            f"{config.clip!r} are {clip.dim} wide after projection; eq. 1 needs equal widths, choose a T5 of that size"
        )
    return clip.to(device), instruction.to(device)
