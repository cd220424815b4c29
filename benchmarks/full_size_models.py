"""The architectures of the public models at full size, from their published configurations, without weights.

Everything is built on torch's current default device; under `with torch.device("meta")` nothing takes memory.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import torch
from torch import nn

from regionedit.config import GeneratorConfig
from regionedit.device import pick_dtype
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
from regionedit.generators import StableDiffusion

CLIP = "ViT-L-14"
"""A configuration of open_clip: 224 px, patch 14, 24 layers 1024 wide, projection 768."""

INSTRUCTION_TOKENS = 77
# the encoder's part of google/flan-t5-base's config.json
FLAN_T5_BASE = {
    "vocab_size": 32128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}

# stable-diffusion-v1-5/stable-diffusion-inpainting: unet/, vae/, text_encoder/, scheduler/
INPAINT_UNET = {
    "sample_size": 64,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
# timbrooks/instruct-pix2pix: the same with the source's latent and no mask
INSTRUCT_PIX2PIX_UNET = INPAINT_UNET | {"in_channels": 8}
INPAINT_VAE = {
    "sample_size": 512,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
}
INPAINT_TEXT_ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
INPAINT_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def clip_model() -> nn.Module:
    """open_clip's ViT-L/14 with the preprocessing of OpenAI's weights."""
    import open_clip
    from open_clip.model import set_model_preprocess_cfg

    model = open_clip.CLIP(**open_clip.get_model_config(CLIP), quick_gelu=True)
    set_model_preprocess_cfg(model, open_clip.get_pretrained_cfg(CLIP, "openai"))
    return model


def instruction_model() -> nn.Module:
    """FLAN-T5-base's encoder, which ignores its attention mask: it would search the mask's values for padding, and meta
    tensors have no values. Without padding, as with `FixedTokens`, this changes nothing."""
    from transformers import T5Config, T5EncoderModel

    model = T5EncoderModel(T5Config(**FLAN_T5_BASE))
    model.register_forward_pre_hook(
        lambda _, positional, named: (positional, {**named, "attention_mask": None}), with_kwargs=True
    )
    return model


def inpaint_modules() -> dict[str, nn.Module]:
    """U-Net, autoencoder and text encoder of Stable Diffusion 1.5 in-painting."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    return {
        "unet": UNet2DConditionModel(**INPAINT_UNET),
        "vae": AutoencoderKL(**INPAINT_VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**INPAINT_TEXT_ENCODER)),
    }


def inpaint_scheduler():
    """Its noise schedule, with real numbers even if the default device is meta."""
    from diffusers import DDIMScheduler

    with torch.device("cpu"):
        return DDIMScheduler(**INPAINT_SCHEDULER)


class FixedTokens:
    """Replaces a tokenizer whose vocabulary is a download: always the same number of tokens, whatever the text."""

    def __init__(self, length: int):
        self.model_max_length = length

    def __call__(self, texts, **how):
        from transformers import BatchEncoding

        ids = torch.ones(len(texts), self.model_max_length, dtype=torch.long, device="cpu")
        return BatchEncoding({"input_ids": ids, "attention_mask": ids.clone()})


def frozen_encoders(device: str = "meta", dtype: torch.dtype = torch.float32):
    """CLIP and the instruction encoder as training and edits use them."""
    import open_clip

    with torch.device(device):
        clip, instruction = clip_model().to(dtype), instruction_model().to(dtype)
    tokens = FixedTokens(INSTRUCTION_TOKENS)
    return (
        FrozenCLIP(clip, open_clip.get_tokenizer(CLIP)).to(device),
        FrozenInstructionEncoder(instruction, tokens, INSTRUCTION_TOKENS + 1),
    )


def inpaint_generator(config: GeneratorConfig, device: str = "meta") -> StableDiffusion:
    """The in-painter as a generator; its optional decoder is TAESD, whose configuration is diffusers' default."""
    from diffusers import AutoencoderTiny

    dtype = getattr(torch, pick_dtype(config.dtype, device))
    with torch.device(device):
        modules = inpaint_modules() | ({"decoder": AutoencoderTiny()} if config.decoder is not None else {})
    modules = {name: module.to(dtype) for name, module in modules.items()}
    return StableDiffusion(modules, FixedTokens(77), inpaint_scheduler(), config)


def random_weights(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model with small random weights on the CPU, without its slow default initialisation."""
    with torch.device("meta"):
        model = build()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return model


def tiny_parts() -> dict:
    """The parts of a Stable Diffusion pipeline beside the U-Net, as small as possible: autoencoder (an eighth of the
    side), text encoder of the real width, tokenizer; no safety checker."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer().train_new_from_iterator([string.ascii_lowercase], vocab_size=560)
    tokenizer.model_max_length = 77
    changes = {"vocab_size": len(tokenizer), "intermediate_size": 768, "num_hidden_layers": 1}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8,) * 4,
            latent_channels=4,
            norm_num_groups=8,
            mid_block_add_attention=False,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**INPAINT_TEXT_ENCODER | changes | ends)),
        "tokenizer": tokenizer,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
