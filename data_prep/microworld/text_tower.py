"""CLIP's text tower as transformers' `CLIPTextModel`: what the in-painter reads captions with, as in Stable Diffusion.

Shape letters: V words, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import word_tokenizer
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HEADS = 4
WORD_END = "</w>"  # CLIP's byte pairs mark the end of a word so


def read_state(file: Path) -> dict[str, Tensor]:
    """The weights in a state that `pretraining.train` wrote, while CLIP is being trained or after.

    Raises:
        FileNotFoundError: CLIP has not been trained for two minutes yet.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: the in-painter's text encoder is CLIP's; train CLIP first (pretrain_clip.py)")
    with safe_open(file, "pt") as state:
        return {name.removeprefix("model/"): state.get_tensor(name) for name in state.keys() if "model/" in name}  # noqa: SIM118


def from_clip(weights: Mapping[str, Tensor], tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The same function of a caption of known words as open_clip's text tower before its projection.

    Args:
        weights: state of an open_clip CLIP whose tokenizer is `word_tokenizer`'s.
        tokenizer: has one token for every word; what is no word keeps a zero embedding.
    """
    position_TD = weights["positional_embedding"]
    layers = len({name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")})
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=position_TD.shape[1],
            intermediate_size=4 * position_TD.shape[1],
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            max_position_embeddings=len(position_TD),
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    renamed = {
        "embeddings.token_embedding.weight": _embedding(weights["token_embedding.weight"], tokenizer),
        "embeddings.position_embedding.weight": position_TD,
    } | {f"final_layer_norm.{kind}": weights[f"ln_final.{kind}"] for kind in ("weight", "bias")}
    for layer in range(layers):
        old, new = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = weights[f"{old}attn.in_proj_{kind}"].chunk(3)
            renamed |= {f"{new}self_attn.{p}_proj.{kind}": part for p, part in zip("qkv", parts, strict=True)}
            for ours, theirs in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
            ):
                renamed[f"{new}{theirs}.{kind}"] = weights[f"{old}{ours}.{kind}"]
    prefix = "text_model." if hasattr(encoder, "text_model") else ""
    encoder.load_state_dict({prefix + name: tensor for name, tensor in renamed.items()})
    return encoder.eval()


def _embedding(word_VD: Tensor, tokenizer: CLIPTokenizer) -> Tensor:
    """CLIP's word embeddings in the order of another tokenizer's ids."""
    words = word_tokenizer.build(word_tokenizer.words(), start=True, max_length=1).get_vocab()
    rows = torch.zeros(len(tokenizer), word_VD.shape[1])
    for token, index in tokenizer.get_vocab().items():
        word = token.removesuffix(WORD_END)
        if word in words and token != word:
            rows[index] = word_VD[words[word]]
    rows[tokenizer.bos_token_id] = word_VD[words[word_tokenizer.START]]
    rows[tokenizer.eos_token_id] = word_VD[words[word_tokenizer.END]]
    return rows
