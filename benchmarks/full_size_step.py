"""One training step of a preset at full size: the public architectures with random weights, a random batch.

On the meta device nothing takes memory, and operations are only counted. full_size_rows.py times the same networks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.full_size_models import frozen_encoders, inpaint_generator
from regionedit.command_line import load_config
from regionedit.config import MemoryConfig, TrainConfig
from regionedit.data.batches import TrainBatch
from regionedit.device import pick_dtype
from regionedit.generators.pipelines import compile_modules
from regionedit.training import RegionTraining
from regionedit.training.networks import Frozen

CONFIGS = Path(__file__).parents[1] / "configs"


def preset(name: str, compiled: bool = False) -> TrainConfig:
    """configs/train_sd15_{name}.yaml, by default without torch.compile, whose operations are not counted."""
    config = load_config(TrainConfig, CONFIGS / f"train_sd15_{name}.yaml")
    if compiled:
        return config
    return replace(
        config,
        generator=replace(config.generator, compile=False),
        encoders=replace(config.encoders, compile=False),
    )


def literal(config: TrainConfig) -> TrainConfig:
    """The paper taken literally at a preset's size: the soft region conditions every step, the gradient passes through
    all steps and the KL decoder, nothing is cached, and no memory setting is on.
    """
    generator = replace(config.generator, decoder=None, masked_image="latent")
    return replace(
        config,
        generator=generator,
        step=replace(config.step, gradient="full", proposal_mask="predicted"),
        memory=MemoryConfig(frozen_convolutions=False),
        data=replace(config.data, features=None, proposals=None),
    )


def frozen_networks(config: TrainConfig, device: str) -> Frozen:
    """The frozen networks with random weights on a device."""
    encoders = frozen_encoders(device, getattr(torch, pick_dtype(config.encoders.dtype, device)))
    generator = inpaint_generator(config.generator, device) if config.data.proposals is None else None
    counted = device == "meta"
    if config.encoders.compile and not counted:
        encoders[0].compile()
    if generator is not None and config.generator.compile and not counted:
        compile_modules(generator.modules)
    return Frozen(*encoders, generator)


def build(config: TrainConfig, device: str) -> RegionTraining:
    """The training step with random weights on a device."""
    frozen = frozen_networks(config, device)
    with torch.device(device):
        return RegionTraining(replace(config, data=replace(config.data, proposals=None)), frozen)


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
