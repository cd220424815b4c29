"""Shared parts of the microworld's two diffusion models: text encoder, U-Net, noise schedule and loss.

Shape letters: B pictures, C channels, h w latent pixels, L text tokens, D text width, T timesteps.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from pretrain_autoencoder import LATENT_FACTOR
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from regionedit.microworld.grammar import VOCABULARY
from regionedit.microworld.scene import SIZE

CONTEXT = 40
TEXT_WIDTH = 128
HIGH_NOISE_WEIGHT = 200.0
# distribution of timesteps: log SNR around -1, which is t of 200 to 850, and a uniform share
CENTRE, SPREAD, ANYWHERE = -1.0, 1.5, 0.15


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer class with byte pairs trained on the grammar's words and on every single character: a character
    that never ends a word in training would become the unknown token, which for CLIP is the end of text."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    tokenizer = CLIPTokenizer().train_new_from_iterator([[*VOCABULARY, *characters]], vocab_size=700)
    tokenizer.model_max_length = CONTEXT
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids BL, padded to CONTEXT as diffusers' pipelines do."""
    options = {"padding": "max_length", "max_length": CONTEXT, "truncation": True, "return_tensors": "pt"}
    return tokenizer(list(texts), **options).input_ids


def build_text_tower(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextModel:
    """CLIP's text encoder with random weights; it is trained together with the U-Net.

    Embeddings start with a far larger spread than transformers' 0.02, which suits widths of hundreds.
    """
    tower = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for name, weight in tower.named_parameters():
        if "embedding" in name:
            nn.init.normal_(weight, std=0.5 if "token" in name else 0.2)
    return tower


def build_unet(in_channels: int, finest: tuple[str, str] = ("DownBlock2D", "UpBlock2D")) -> UNet2DConditionModel:
    """The U-Net. `finest` names its down and up block at the full latent size; most of it works at 8 x 8."""
    return UNet2DConditionModel(
        sample_size=SIZE // LATENT_FACTOR,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(32, 96),
        down_block_types=(finest[0], "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", finest[1]),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def build_scheduler() -> DDIMScheduler:
    """Epsilon prediction and scaled-linear betas, as in Stable Diffusion 1.5."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
        timestep_spacing="trailing",
    )


class Denoising:
    """Adds noise to latents and computes the loss of the predicted noise.

    Timesteps are drawn around the log SNR at which shapes are decided (Hang et al. 2024, arXiv 2407.03297). The squared
    error in epsilon is weighted by 1 / alpha, which makes it the error in velocity, up to HIGH_NOISE_WEIGHT.
    """

    def __init__(self, scheduler: DDIMScheduler, device: str):
        alpha_T = scheduler.alphas_cumprod
        snr_T = (alpha_T / (1 - alpha_T)).log()
        density_T = (-0.5 * ((snr_T - CENTRE) / SPREAD) ** 2).exp() * torch.gradient(snr_T)[0].abs()
        self.density_T = (1 - ANYWHERE) * density_T / density_T.sum() + ANYWHERE / len(density_T)
        self.alpha_T = alpha_T.to(device)

    def draw(self, count: int) -> Tensor:
        """Random timesteps, int [count], from torch's global generator."""
        return torch.multinomial(self.density_T, count, replacement=True).to(self.alpha_T.device)

    def noised(self, clean_BChw: Tensor, noise_BChw: Tensor, time_B: Tensor) -> Tensor:
        """Latents with the noise of a timestep added."""
        alpha_B111 = self.alpha_T[time_B][:, None, None, None]
        return alpha_B111.sqrt() * clean_BChw + (1 - alpha_B111).sqrt() * noise_BChw

    def loss(self, predicted_BChw: Tensor, noise_BChw: Tensor, time_B: Tensor, weight_B1hw: Tensor) -> Tensor:
        """Weighted mean squared error, a scalar."""
        alpha_B111 = self.alpha_T[time_B][:, None, None, None]
        weight = weight_B1hw * (1 / alpha_B111).clamp(max=HIGH_NOISE_WEIGHT)
        return (weight * (predicted_BChw.float() - noise_BChw).square()).mean()
