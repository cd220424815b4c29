"""Memory for the weights of the in-painting models in `configs/`, counted on the meta device; nothing is run.

    python -m benchmarks.pipeline_memory

It uses the published architectures. `all`: everything on the device, as with `generator.offload: none`; `largest`: only
the largest part, which is about what `offload: model` needs. Both are for bfloat16 in GiB, without activations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks import full_size_models
from benchmarks.harness import options

FLUX_VAE = full_size_models.INPAINT_VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
CLIP_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN25_VL_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
QWEN25_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
}
SDXL_UNET = {
    "in_channels": 9,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD35_MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
KLEIN_4B = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}


def parts() -> dict[str, Callable[[], nn.Module]]:
    """The networks that the pipelines consist of."""
    import diffusers
    import transformers

    def clip(**settings):
        return transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**settings))

    return {
        "CLIP-L": lambda: clip(**full_size_models.INPAINT_TEXT_ENCODER),
        "CLIP-G": lambda: clip(**CLIP_BIG_G),
        "T5-XXL": lambda: transformers.T5EncoderModel(transformers.T5Config(**T5_XXL)),
        "Qwen3-4B": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**QWEN3_4B)),
        "Qwen2.5-VL-7B": lambda: transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(text_config=QWEN25_VL_7B, vision_config=QWEN25_VISION)
        ),
        "safety checker": lambda: transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(**CLIP_VISION)
        ),
        "SD VAE": lambda: diffusers.AutoencoderKL(**full_size_models.INPAINT_VAE),
        "FLUX VAE": lambda: diffusers.AutoencoderKL(**FLUX_VAE),
        "FLUX.2 VAE": lambda: diffusers.AutoencoderKLFlux2(),
        "Qwen VAE": lambda: diffusers.AutoencoderKLQwenImage(),
        "SD 1.5": lambda: diffusers.UNet2DConditionModel(**full_size_models.INPAINT_UNET),
        "SDXL": lambda: diffusers.UNet2DConditionModel(**SDXL_UNET),
        "SD 3.5 medium": lambda: diffusers.SD3Transformer2DModel(**SD35_MEDIUM),
        "FLUX": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
        "FLUX Fill": lambda: diffusers.FluxTransformer2DModel(in_channels=384, out_channels=64, guidance_embeds=True),
        "klein": lambda: diffusers.Flux2Transformer2DModel(**KLEIN_4B),
        "Qwen-Image": lambda: diffusers.QwenImageTransformer2DModel(),
        "Z-Image": lambda: diffusers.ZImageTransformer2DModel(),
        "Chroma": lambda: diffusers.ChromaTransformer2DModel(),
    }


PIPELINES = {
    "sd15_lcm": ("SD 1.5", "CLIP-L", "SD VAE", "safety checker"),
    "sdxl": ("SDXL", "CLIP-L", "CLIP-G", "SD VAE"),
    "sd3": ("SD 3.5 medium", "CLIP-L", "CLIP-G", "T5-XXL", "FLUX VAE"),
    "flux_fill": ("FLUX Fill", "CLIP-L", "T5-XXL", "FLUX VAE"),
    "flux_kontext": ("FLUX", "CLIP-L", "T5-XXL", "FLUX VAE"),
    "flux2_klein": ("klein", "Qwen3-4B", "FLUX.2 VAE"),
    "qwen_edit": ("Qwen-Image", "Qwen2.5-VL-7B", "Qwen VAE"),
    "z_image": ("Z-Image", "Qwen3-4B", "FLUX VAE"),
    "chroma": ("Chroma", "T5-XXL", "FLUX VAE"),
}


def main() -> None:
    options(__doc__).parse_args()
    counted = {}
    for name, build in parts().items():
        with torch.device("meta"):
            counted[name] = sum(weight.numel() for weight in build().parameters())
    print("| configs/edit_*.yaml | parameters, 10^9 | all, GiB | largest, GiB |")
    print("|---|---|---|---|")
    for name, used in PIPELINES.items():
        each = [counted[part] for part in used]
        row = [f"{sum(each) / 1e9:.2f}", *(f"{2 * count / 2**30:.1f}" for count in (sum(each), max(each)))]
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
