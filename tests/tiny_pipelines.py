"""Tiny random pipelines of the real in-painting classes, built from configurations: nothing is downloaded.

Autoencoders shrink a side by four, so that 32 pixels are 8 x 8 cells and 4 x 4 packed tokens.
"""

from collections.abc import Callable
from pathlib import Path

from tests.tiny_language_models import chat_tokenizer, write_vision_language_model
from tests.tiny_models import (
    AUTOENCODER,
    IMAGE_SIZE,
    UNET,
    WIDTH,
    clip_text_config,
    seeded,
    stir,
    write_inpaint,
    write_t5,
)
from tests.tiny_tokenizers import clip_tokenizer

TRANSFORMER = {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}


def write_pipeline(name: str, folder: Path, seed: int = 0) -> Path:
    """A folder of the class `name`."""
    if name == "StableDiffusionInpaintPipeline":
        return write_inpaint(folder, seed)
    import diffusers

    with seeded(seed):
        components = BUILDERS[name](folder)
    if "transformer" in components:
        stir(components["transformer"], seed)
    getattr(diffusers, name)(**components).save_pretrained(folder, safe_serialization=True)
    return folder


def write_checked(folder: Path, flags: bool) -> Path:
    """A StableDiffusionInpaintPipeline whose safety checker finds fault with every picture, or with none."""
    from diffusers import StableDiffusionInpaintPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = sizes | {"image_size": IMAGE_SIZE, "patch_size": 16}
    with seeded(0):
        checker = StableDiffusionSafetyChecker(
            CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=WIDTH)
        )
    checker.concept_embeds_weights.fill_(-10 if flags else 10)
    checker.special_care_embeds_weights.fill_(10)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(write_inpaint(folder), safety_checker=None)
    StableDiffusionInpaintPipeline(
        **{name: part for name, part in pipeline.components.items() if name != "image_encoder"}
        | {
            "safety_checker": checker,
            "feature_extractor": CLIPImageProcessor(
                size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
            ),
        }
    ).save_pretrained(folder)
    return folder


def _autoencoder(channels: int = 4, **settings):
    from diffusers import AutoencoderKL

    return AutoencoderKL(latent_channels=channels, **AUTOENCODER, **settings)


def _flow(channels: int = 4) -> dict:
    """Scheduler and autoencoder of a model that predicts flows; the autoencoder has a shift and a scale."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    unquantised = {"use_quant_conv": False, "use_post_quant_conv": False}
    vae = _autoencoder(channels, shift_factor=0.06, scaling_factor=1.5, **unquantised)
    return {"scheduler": FlowMatchEulerDiscreteScheduler(), "vae": vae}


def _clip(number: str = "", projected: bool = False) -> dict:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer, kind = clip_tokenizer(), CLIPTextModelWithProjection if projected else CLIPTextModel
    model = kind(clip_text_config(tokenizer, layers=2, projection=WIDTH))
    return {f"tokenizer{number}": tokenizer, f"text_encoder{number}": model}


def _t5(folder: Path, number: str = "", width: int = WIDTH) -> dict:
    from transformers import T5EncoderModel, T5TokenizerFast

    place = write_t5(folder / "t5", width=width)
    return {
        f"tokenizer{number}": T5TokenizerFast.from_pretrained(place),
        f"text_encoder{number}": T5EncoderModel.from_pretrained(place),
    }


def _qwen3(layers: int) -> dict:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = chat_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH // 2,
        num_hidden_layers=layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
    )
    return {"tokenizer": tokenizer, "text_encoder": Qwen3ForCausalLM(config)}


def _sdxl(folder: Path) -> dict:
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        **UNET,
        in_channels=9,
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return {
        "unet": unet,
        "vae": _autoencoder(),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
        **_clip(),
        **_clip("_2", projected=True),
    }


def _sd3(folder: Path) -> dict:
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(
        sample_size=IMAGE_SIZE // 4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=32,
    )
    clips = _clip(projected=True) | _clip("_2", projected=True)
    return {"transformer": transformer, **_flow(16), **clips, **_t5(folder, "_3", 2 * WIDTH)}


def _flux(folder: Path, channels: int = 16, guided: bool = True) -> dict:
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=channels,
        out_channels=16,
        **TRANSFORMER,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guided,
        axes_dims_rope=(4, 4, 8),
    )
    return {"transformer": transformer, **_flow(), **_clip(), **_t5(folder, "_2")}


def _flux_fill(folder: Path) -> dict:
    """Latents, the masked source's, and a mask of 4 x 4 pixels in each of 2 x 2 cells."""
    return _flux(folder, channels=16 + 16 + 64)


def _flux2_klein(folder: Path) -> dict:
    """The text encoder's layers 9, 18 and 27 are read."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=16,
        **TRANSFORMER,
        num_single_layers=1,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = AutoencoderKLFlux2(latent_channels=4, **AUTOENCODER)
    vae.bn.running_mean.uniform_(-0.5, 0.5)
    vae.bn.running_var.uniform_(0.5, 2)
    return _flow() | {"transformer": transformer, "vae": vae, **_qwen3(28)}


def _qwen(folder: Path) -> dict:
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    place = write_vision_language_model(folder / "vision_language")
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        **TRANSFORMER,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[-0.5, 0.2, 0.4, 0.1],
        latents_std=[1.5, 0.8, 1.2, 2.0],
    )
    text_encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(place)
    texts = {"text_encoder": text_encoder, "tokenizer": Qwen2Tokenizer.from_pretrained(place)}
    return _flow() | {"transformer": transformer, "vae": vae} | texts


def _qwen_edit(folder: Path) -> dict:
    from transformers import Qwen2VLProcessor

    return _qwen(folder) | {"processor": Qwen2VLProcessor.from_pretrained(folder / "vision_language")}


def _z_image(folder: Path) -> dict:
    from diffusers import ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    return {"transformer": transformer, **_flow(), **_qwen3(3)}


def _chroma(folder: Path) -> dict:
    from diffusers import ChromaTransformer2DModel

    transformer = ChromaTransformer2DModel(
        in_channels=16,
        **TRANSFORMER,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return {"transformer": transformer, **_flow(), **_t5(folder)}


BUILDERS: dict[str, Callable[[Path], dict]] = {
    "StableDiffusionXLInpaintPipeline": _sdxl,
    "StableDiffusion3InpaintPipeline": _sd3,
    "FluxFillPipeline": _flux_fill,
    "FluxInpaintPipeline": _flux,
    "FluxKontextInpaintPipeline": _flux,
    "Flux2KleinInpaintPipeline": _flux2_klein,
    "QwenImageInpaintPipeline": _qwen,
    "QwenImageEditInpaintPipeline": _qwen_edit,
    "ZImageInpaintPipeline": _z_image,
    "ChromaInpaintPipeline": _chroma,
}
