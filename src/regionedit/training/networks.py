"""The networks of a training run: what a configuration may ask of them, and how they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder, load_encoders
from regionedit.generators import (
    DifferentiableGenerator,
    Generator,
    load_generator,
    require_generator,
    require_gradient,
)
from regionedit.precision import settle_training
from regionedit.proposal_masks import check_stored
from regionedit.region_predictor import RegionPredictor

if TYPE_CHECKING:
    from regionedit.config import TrainConfig

Frozen = tuple[FrozenCLIP, FrozenInstructionEncoder, Generator | None]


def check_step(config: TrainConfig) -> None:
    """Refuse, before any model is loaded, what a step cannot do.

    Raises:
        ValueError: names the field and the way out.
    """
    step = config.step
    require_gradient(config.generator.name, step.gradient)
    if step.gradient in ("last_step", "full") and step.proposal_mask != "predicted":
        raise ValueError(
            f"step.proposal_mask: with step.gradient {step.gradient!r} the gradient passes through what conditions the "
            f"generator, so it must be 'predicted', not {step.proposal_mask!r}"
        )
    if config.data.proposals and step.gradient != "composite":
        raise ValueError(f"data.proposals: stored proposals carry no step.gradient {step.gradient!r}; use 'composite'")
    if config.data.proposal_rounds < 1 or (config.data.proposal_rounds > 1 and not config.data.proposals):
        raise ValueError(
            f"data.proposal_rounds: {config.data.proposal_rounds}; it counts the rounds that data.proposals holds, at "
            "least 1, and 1 where none are stored"
        )
    if config.savers.chunk < 0:
        raise ValueError(f"savers.chunk: {config.savers.chunk}, must be at least 0; 0 takes the whole batch at once")
    asked = {"savers.compile": config.savers.compile, "savers.checkpoint": {*config.savers.checkpoint} - {"clip"}}
    able = issubclass(require_generator(config.generator.name), DifferentiableGenerator)
    for name in (name for name, wanted in asked.items() if wanted and not able):
        raise ValueError(f"{name}: generator {config.generator.name!r} carries no gradient and has none; leave it out")
    if config.data.proposals:
        check_stored(Path(config.data.proposals), step.proposal_mask)


def load_frozen(config: TrainConfig) -> Frozen:
    """CLIP, T5 and the generator, which stored proposals replace. Raises ValueError where one cannot be loaded."""
    config = settle_training(config, "cpu")  # what `train` has not settled for its own device
    generator = load_generator(config.generator) if config.data.proposals is None else None
    return (*load_encoders(config.encoders), generator)


def load_predictor(config: TrainConfig, dim: int, grid: int) -> RegionPredictor:
    """A new predictor, or `initial_region`.

    Raises:
        ValueError: the initial region is not there or was made for other encoders.
    """
    if config.initial_region is None:
        return RegionPredictor.from_config(config.predictor, dim, grid)
    try:
        predictor = RegionPredictor.from_pretrained(config.initial_region)
    except Exception as error:  # folder, hub and safetensors each fail in their own way; the reader needs the name
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"initial_region: nothing could be loaded from {config.initial_region!r}: {reason}") from error
    if (predictor.dim, predictor.grid) != (dim, grid):
        raise ValueError(
            f"initial_region: {config.initial_region} is for features {predictor.dim} wide on a grid of "
            f"{predictor.grid}, but encoders.clip gives {dim} and {grid}"
        )
    return predictor.train()
