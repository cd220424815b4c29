"""Tiny random models of the real classes, written to folders in their libraries' own layouts.

Nothing here is trained: the weights are seeded noise. The shapes mirror the real ones: CLIP's projection is as wide as
the instruction encoder, patch tokens are wider before projection than after, text is cut at a context length, and the
in-painter has nine input channels. 32 px, patch 8 (a 4x4 grid), width 32, latents 8x8.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.tiny_tokenizers import CONTEXT, WORDS, clip_tokenizer, word_tokenizer

WIDTH = 32
IMAGE_SIZE = 32
PATCH = 8
GRID = IMAGE_SIZE // PATCH


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights made in this context follow from the seed; the generator outside goes on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": IMAGE_SIZE,
    "mid_block_add_attention": False,
}
"""Of every tiny autoencoder of diffusers: a side shrinks by four."""

UNET = {
    "sample_size": IMAGE_SIZE // 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}


def write_clip(folder: Path, seed: int = 0, image_size: int = IMAGE_SIZE, patch: int = PATCH) -> Path:
    """An open_clip CLIP for `local-dir:FOLDER`: open_clip_config.json, open_clip_model.safetensors, tokenizer files.

    `hf_tokenizer_name` must be there and not empty; for a local-dir open_clip then reads the tokenizer from the folder
    itself, whatever the name says. EOS has the highest id, because text is pooled at the argmax of the ids.
    """
    import open_clip

    model_cfg = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": image_size, "patch_size": patch, "layers": 2, "width": 64, "head_width": WIDTH},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(WORDS) + 4,
            "hf_tokenizer_name": "local",
            "width": WIDTH,
            "heads": 2,
            "layers": 1,
        },
    }
    preprocess_cfg = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with seeded(seed):
        model = open_clip.CLIP(**model_cfg)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    word_tokenizer().save_pretrained(folder)
    return folder


def write_t5(folder: Path, seed: int = 0, width: int = WIDTH) -> Path:
    """A T5EncoderModel with its tokenizer, one token a word."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -5.0)]
    tokenizer = T5Tokenizer(vocab=specials + [(f"▁{word}", -1.0) for word in WORDS], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.1,
    )
    with seeded(seed):
        T5EncoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_inpaint(folder: Path, seed: int = 0, prediction_type: str = "epsilon", variant: str | None = None) -> Path:
    """A StableDiffusionInpaintPipeline folder: AutoencoderKL f=4, nine-channel U-Net, CLIP text encoder, DDIM."""
    from diffusers import StableDiffusionInpaintPipeline

    return _write_pipeline(StableDiffusionInpaintPipeline, 9, folder, seed, prediction_type, variant)


def write_instruct_pix2pix(folder: Path, seed: int = 0) -> Path:
    """A StableDiffusionInstructPix2PixPipeline folder: the same with an eight-channel U-Net."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    return _write_pipeline(StableDiffusionInstructPix2PixPipeline, 8, folder, seed, "epsilon")


def _write_pipeline(
    pipeline_class, channels: int, folder: Path, seed: int, prediction_type: str, variant: str | None = None
) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    tokenizer = clip_tokenizer()
    with seeded(seed):
        vae = AutoencoderKL(latent_channels=4, **AUTOENCODER)
        unet = UNet2DConditionModel(in_channels=channels, cross_attention_dim=WIDTH, **UNET)
        text_encoder = CLIPTextModel(clip_text_config(tokenizer, layers=1))
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    pipeline = pipeline_class(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True, variant=variant)
    return folder


def clip_text_config(tokenizer, layers: int, projection: int = 512):
    """Of a tiny CLIP text tower; `projection` is the library's own default, and matters to classes that project."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        projection_dim=projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def write_next_scale(folder: Path, seed: int = 0) -> Path:
    """A NextScaleModel folder: 32 px, token maps of 1, 2, 4 and 8 cells a side."""
    from transformers import CLIPTextModel

    from regionedit.generators.next_scale_model import NextScaleModel, NextScaleSizes

    sizes = NextScaleSizes(
        image_size=IMAGE_SIZE,
        sides=(1, 2, 4, 8),
        codes=16,
        channels=8,
        autoencoder_widths=(8, 16),
        width=WIDTH,
        layers=1,
        heads=2,
        mlp=WIDTH,
        text_width=WIDTH,
        view=4,
    )
    tokenizer = clip_tokenizer()
    with seeded(seed):
        model = NextScaleModel(sizes, stir(CLIPTextModel(clip_text_config(tokenizer, layers=1)), seed), tokenizer)
    stir(model.transformer, seed)
    model.save(folder)
    return folder


def write_masked_token(folder: Path, seed: int = 0, downsample: bool = False) -> Path:
    """An AmusedInpaintPipeline folder: VQModel f=4 with 64 codes, U-ViT, CLIP text encoder with projection.

    The codes are spread, and so are the weights that make logits: with a fresh start every token is as likely as any.
    """
    from diffusers import AmusedInpaintPipeline, AmusedScheduler, UVit2DModel, VQModel
    from transformers import CLIPTextModelWithProjection

    tokenizer, codes = clip_tokenizer(), 64
    with seeded(seed):
        vqvae = VQModel(latent_channels=4, num_vq_embeddings=codes, lookup_from_codebook=True, **AUTOENCODER)
        torch.nn.init.normal_(vqvae.quantize.embedding.weight, std=0.5)
        transformer = UVit2DModel(
            hidden_size=WIDTH,
            cond_embed_dim=WIDTH,
            micro_cond_encode_dim=4,
            micro_cond_embed_dim=5 * 4,
            encoder_hidden_size=WIDTH,
            vocab_size=codes + 1,
            codebook_size=codes,
            in_channels=WIDTH,
            block_out_channels=WIDTH,
            num_res_blocks=1,
            downsample=downsample,
            upsample=downsample,
            block_num_heads=2,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=2 * WIDTH,
            sample_size=IMAGE_SIZE // 4,
        )
        torch.nn.init.normal_(transformer.mlm_layer.conv2.weight, std=0.5)
        text_encoder = CLIPTextModelWithProjection(clip_text_config(tokenizer, layers=2, projection=WIDTH))
    pipeline = AmusedInpaintPipeline(
        vqvae=vqvae,
        tokenizer=tokenizer,
        text_encoder=stir(text_encoder, seed),
        transformer=transformer,
        scheduler=AmusedScheduler(mask_token_id=codes),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tiny_decoder(folder: Path, seed: int = 0, channels: int = 4) -> Path:
    """An AutoencoderTiny for the same latents: a quarter of the side."""
    from diffusers import AutoencoderTiny

    with seeded(seed):
        blocks = {f"{part}_block_out_channels": (8, 8, 8) for part in ("encoder", "decoder")}
        counts = {f"num_{part}_blocks": (1, 1, 1) for part in ("encoder", "decoder")}
        AutoencoderTiny(**blocks, **counts, latent_channels=channels).save_pretrained(folder)
    return folder


def write_dino(folder: Path, seed: int = 0) -> Path:
    """A transformers ViTModel with its image processor."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
    )
    with seeded(seed):
        ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(folder)
    return folder


def stir(model, seed: int):
    """Larger random weights: fresh ones are so small that models hardly look at the text, and SAM at its prompt."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model
