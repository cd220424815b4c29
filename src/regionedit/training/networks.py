"""The networks of a training run: checks of the configuration, and loading."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from regionedit.config import TrainConfig
from regionedit.dtypes import resolve_training
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder, load_encoders
from regionedit.generators import (
    DifferentiableGenerator,
    Generator,
    load_generator,
    require_generator,
    require_gradient,
)
from regionedit.mask_sources.learned import check_fits, load_predictor
from regionedit.proposal_masks import check_stored
from regionedit.region_predictor import RegionPredictor


class Frozen(NamedTuple):
    """The frozen networks of a training run; `generator` is None with stored proposals."""

    clip: FrozenCLIP
    instruction_encoder: FrozenInstructionEncoder
    generator: Generator | None


def check_step(config: TrainConfig) -> None:
    """Reject settings that a training step cannot run, before any model is loaded.

    Raises:
        ValueError: names the field and what to do.
    """
    step = config.step
    if config.loss.region and config.data.features is None:
        raise ValueError(
            "data.features: not set, but loss.region learns from the regions in it; write them with "
            "data_prep/search_regions.py, or set loss.region to 0"
        )
    if step.gradient == "search":
        _check_search(config)
    else:
        require_gradient(config.generator.name, step.gradient)
    if step.gradient in ("last_step", "full") and step.proposal_mask != "predicted":
        raise ValueError(
            f"step.proposal_mask: with step.gradient {step.gradient!r} the gradient passes through the mask that "
            f"conditions the generator, so it must be 'predicted', not {step.proposal_mask!r}"
        )
    if config.data.proposals and step.gradient != "composite":
        raise ValueError(f"data.proposals: stored proposals need step.gradient 'composite', not {step.gradient!r}")
    if config.data.proposal_rounds < 1 or (config.data.proposal_rounds > 1 and not config.data.proposals):
        raise ValueError(
            f"data.proposal_rounds: {config.data.proposal_rounds}; set it to the number of rounds in data.proposals, "
            "or to 1 without stored proposals"
        )
    if config.log.export == "best" and not has_validation_loss(config):
        raise ValueError(
            "log.export: 'best' is the lowest validation loss, which needs data.held_out, or data.validation and a "
            "generator in place of data.proposals, which hold none for these pictures; use 'last'"
        )
    if config.memory.chunk < 0:
        raise ValueError(f"memory.chunk: {config.memory.chunk}, must be at least 0; 0 takes the whole batch at once")
    if config.data.micro_batch < 0:
        raise ValueError(f"data.micro_batch: {config.data.micro_batch}, must be at least 0; 0 takes the whole share")
    of_generator = {*config.memory.checkpoint} - {"clip"}
    differentiable = issubclass(require_generator(config.generator.name), DifferentiableGenerator)
    if of_generator and not differentiable:
        raise ValueError(
            f"memory.checkpoint: generator {config.generator.name!r} is not differentiable; leave out "
            f"{', '.join(sorted(of_generator))}"
        )
    if config.data.proposals:
        check_stored(Path(config.data.proposals), step.proposal_mask)


def _check_search(config: TrainConfig) -> None:
    if config.data.proposals is not None:
        raise ValueError("data.proposals: step.gradient 'search' uses none; set it to null, or choose 'composite'")
    if config.loss.beta or not config.loss.region:
        raise ValueError(
            "loss.beta, loss.region: with step.gradient 'search' no picture is made for equations 7 to 9; "
            "set loss.beta to 0 and loss.region to 1"
        )


def has_validation_loss(config: TrainConfig) -> bool:
    """Can validation compute losses? Stored proposals exist for the samples of `data.train` only, and searched regions
    for those that are trained on."""
    data = config.data
    if config.step.gradient == "search":
        return False
    return bool(data.held_out) or bool(data.validation and not data.proposals)


def load_frozen(config: TrainConfig) -> Frozen:
    """CLIP, T5 and the generator (None with stored proposals). Raises ValueError if one cannot be loaded."""
    config = resolve_training(config, "cpu")  # resolves `auto` for callers other than `train`
    needs_generator = config.data.proposals is None and config.step.gradient != "search"
    generator = load_generator(config.generator) if needs_generator else None
    return Frozen(*load_encoders(config.encoders), generator)


def initial_predictor(config: TrainConfig, clip: FrozenCLIP) -> RegionPredictor:
    """A new predictor, or the one at `initial_region`.

    Raises:
        ValueError: the initial region cannot be loaded or was made for another CLIP.
    """
    if config.initial_region is None:
        return RegionPredictor.from_config(config.predictor, clip.dim, clip.grid)
    predictor = load_predictor("initial_region", config.initial_region)
    check_fits("initial_region", predictor, clip)
    return predictor.train()
