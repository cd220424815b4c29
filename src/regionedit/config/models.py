"""Settings of the frozen encoders and of the region predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MICROWORLD = "checkpoints/microworld"


@dataclass
class EncodersConfig:
    """The frozen encoders.

    Args:
        clip: open_clip model: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or an architecture name such as ViT-L-14.
        clip_pretrained: open_clip tag for an architecture name (openai); None for the other two forms.
        instruction: folder or hub name of a T5 encoder, whose width equals CLIP's projection (768 in the paper).
        instruction_revision: pinned revision of a hub name.
        max_instruction_tokens: longer instructions are cut, with a warning.
        dtype: precision of the frozen encoders' weights; losses are always float32. auto: bfloat16 if the device
            multiplies it faster than float32 (see `device.fast_bfloat16`), else float32; in training always float32,
            because equation 8 compares small differences. Products of float32 are TF32 on a GPU in training.
        text_dtype: precision of what encodes texts, T5 and CLIP's text tower; None: as `dtype`. bfloat16 halves their
            time on a GPU, and changes an embedding by less than a hundredth.
        compile: torch.compile the layers of CLIP's image tower. Results differ by rounding.
    """

    clip: str = f"local-dir:{MICROWORLD}/clip"
    clip_pretrained: str | None = None
    instruction: str = f"{MICROWORLD}/t5"
    instruction_revision: str | None = None
    max_instruction_tokens: int = 77
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    text_dtype: Literal["auto", "float32", "bfloat16"] | None = None
    compile: bool = False

    @property
    def dtype_of_texts(self) -> str:
        return self.text_dtype or self.dtype


@dataclass
class PredictorConfig:
    """The region predictor, equations 1-3 and f_sem.

    Args:
        variant: `default`, or `paper`: exactly eq. 1-3 (no residual, no norm, no positions, one head).
        heads: attention heads of the default variant.
        residual: add each attention's input to its output.
        norm: LayerNorm before each attention and the MLP.
        positions: learned position per patch.
        mlp_width: hidden width of the region head; 0 means the embedding width.
        initial_probability: P of an untrained predictor, set by the bias of the region head.
        blocks: how often eq. 1 and 2 follow each other; the paper has one. A second one distinguishes objects that
            differ in two words, such as colour and shape.
    """

    variant: Literal["default", "paper"] = "default"
    heads: int = 4
    residual: bool = True
    norm: bool = True
    positions: bool = True
    mlp_width: int = 0
    initial_probability: float = 0.5
    blocks: int = 2
