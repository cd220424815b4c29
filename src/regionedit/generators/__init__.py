"""Frozen generators. To add one, write `generators/x.py` and a line in `GENERATORS`; contract tests then cover it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regionedit.generators.base import DifferentiableGenerator, Generator, Need, TextComparer, Watch, step_of_all
from regionedit.generators.diffusers_inpaint import DiffusersInpaint
from regionedit.generators.instruct_pix2pix import InstructPix2Pix
from regionedit.generators.masked_token import MaskedToken
from regionedit.generators.next_scale import NextScale
from regionedit.generators.noise import noise_seed
from regionedit.generators.stable_diffusion import StableDiffusion

if TYPE_CHECKING:
    import torch

    from regionedit.config import GeneratorConfig

GENERATORS: dict[str, type[Generator]] = {
    "stable_diffusion": StableDiffusion,
    "instruct_pix2pix": InstructPix2Pix,
    "masked_token": MaskedToken,
    "diffusers_inpaint": DiffusersInpaint,
    "next_scale": NextScale,
}

__all__ = [
    "GENERATORS",
    "DifferentiableGenerator",
    "DiffusersInpaint",
    "Generator",
    "InstructPix2Pix",
    "Need",
    "StableDiffusion",
    "TextComparer",
    "Watch",
    "load_generator",
    "noise_seed",
    "require_generator",
    "require_gradient",
    "step_of_all",
    "with_dtype",
]


def require_generator(name: str) -> type[Generator]:
    """The class behind `generator.name`; loads nothing.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in GENERATORS:
        raise ValueError(f"generator.name: no generator {name!r}; there are: {', '.join(sorted(GENERATORS))}")
    return GENERATORS[name]


def require_gradient(name: str, gradient: str) -> None:
    """Reject a `step.gradient` that the generator does not support, before any model is loaded.

    Raises:
        ValueError: `gradient` is not `composite` and `name` is not a `DifferentiableGenerator`; lists those that are.
    """
    if gradient != "composite" and not issubclass(require_generator(name), DifferentiableGenerator):
        able = sorted(key for key, kind in GENERATORS.items() if issubclass(kind, DifferentiableGenerator))
        raise ValueError(
            f"step.gradient: {gradient!r} needs a differentiable generator, which {name!r} is not; "
            f"use `composite`, or one of the generators {', '.join(able)}"
        )


def load_generator(config: GeneratorConfig, device: str | torch.device = "cpu") -> Generator:
    """Load the frozen generator of a configuration onto a device.

    Raises:
        ValueError: unknown `generator.name`, or nothing that can be loaded at `generator.path`.
    """
    return require_generator(config.name).load(with_dtype(config, device)).to(device)


def with_dtype(config: GeneratorConfig, device: str | torch.device) -> GeneratorConfig:
    """`config` with dtype `auto` replaced by the one for this device.

    Raises:
        ValueError: unknown `generator.name`.
    """
    return replace(config, dtype=require_generator(config.name).dtype_of(config, device))
