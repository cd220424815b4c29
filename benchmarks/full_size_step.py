"""One training step of a preset at full size: the public architectures with random weights, a random batch.

On the meta device nothing takes memory, and operations are only counted. On a GPU the same step can be timed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks import full_size_models
from regionedit.command_line import load_config
from regionedit.config import GeneratorConfig, MemoryConfig, TrainConfig
from regionedit.device import pick_dtype
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
from regionedit.generators.stable_diffusion import StableDiffusion
from regionedit.records import TrainBatch
from regionedit.training import RegionTraining

PRESETS = ("paper256", "fast512", "max256", "exact512", "stored")
INSTRUCTION_TOKENS = 77
CONFIGS = Path(__file__).parents[1] / "configs"


def preset(name: str) -> TrainConfig:
    """configs/train_sd15_{name}.yaml without torch.compile, whose operations are not counted."""
    config = load_config(TrainConfig, CONFIGS / f"train_sd15_{name}.yaml")
    return replace(config, generator=replace(config.generator, compile=False))


def literal(config: TrainConfig, steps: int = 0) -> TrainConfig:
    """The paper taken literally at a preset's size: the soft region conditions every step, the gradient passes through
    all steps and the KL decoder, nothing is cached, and no memory setting is on.

    Args:
        steps: denoising steps; 0 keeps those of the preset.
    """
    generator = replace(
        config.generator,
        decoder=None,
        masked_image="latent",
        num_inference_steps=steps or config.generator.num_inference_steps,
    )
    return replace(
        config,
        generator=generator,
        step=replace(config.step, gradient="full", proposal_mask="predicted"),
        memory=MemoryConfig(frozen_convolutions=False),
        data=replace(config.data, features=None, proposals=None),
    )


def build(config: TrainConfig, device: str) -> RegionTraining:
    """The training step with random weights on a device."""
    with torch.device(device):
        clip_model, instruction_model = full_size_models.clip_model(), full_size_models.instruction_model()
    import open_clip

    dtype = getattr(torch, pick_dtype(config.encoders.dtype, device))
    tokens = full_size_models.FixedTokens(INSTRUCTION_TOKENS)
    clip = FrozenCLIP(clip_model.to(dtype), open_clip.get_tokenizer(full_size_models.CLIP)).to(device)
    instruction = FrozenInstructionEncoder(instruction_model.to(dtype), tokens, INSTRUCTION_TOKENS + 1)
    generator = build_generator(config.generator, device) if config.data.proposals is None else None
    with torch.device(device):
        return RegionTraining(
            replace(config, data=replace(config.data, proposals=None)), (clip, instruction, generator)
        )


def build_generator(config: GeneratorConfig, device: str) -> StableDiffusion:
    with torch.device(device):
        modules: dict[str, nn.Module] = full_size_models.inpaint_modules()
        if config.decoder is not None:
            modules["decoder"] = full_size_models.tiny_decoder()
    modules = {name: module.to(getattr(torch, pick_dtype(config.dtype, device))) for name, module in modules.items()}
    return StableDiffusion(modules, full_size_models.FixedTokens(77), full_size_models.inpaint_scheduler(), config)


def batch_for(config: TrainConfig, module: RegionTraining, device: str, count: int) -> TrainBatch:
    """Random pictures, with random features and proposals where the configuration has cached or stored ones."""
    clip, size = module.frozen.clip, config.data.image_size

    def made(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=device) if device == "meta" else torch.rand(shape, device=device)

    side = config.generator.size // 8
    cached = config.data.features is not None
    text_BD = made(count, clip.dim) if cached else None
    texts = tuple(f"picture {number}" for number in range(count))
    return TrainBatch(
        keys=texts,
        images_BCHW=made(count, 3, size, size),
        instructions=texts,
        source_captions=texts,
        target_captions=texts,
        proposals_BCHW=made(count, 3, size, size) if config.data.proposals is not None else None,
        source_text_BD=text_BD,
        target_text_BD=text_BD,
        latents_BChw=made(count, 4, side, side) if cached and config.data.proposals is None else None,
    )
