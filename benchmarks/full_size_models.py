"""The architectures of the public models at full size, from their published configurations, without weights.

Everything is built on torch's current default device; under `with torch.device("meta")` nothing takes memory.
"""

from __future__ import annotations

import torch
from torch import nn

CLIP = "ViT-L-14"
"""A configuration of open_clip: 224 px, patch 14, 24 layers 1024 wide, projection 768."""

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


def tiny_decoder() -> nn.Module:
    """TAESD: madebyollin/taesd has the library's default configuration."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny()


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
