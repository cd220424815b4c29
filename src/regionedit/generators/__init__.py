"""Frozen generators. To add one, write `generators/x.py` and a line in `GENERATORS`; contract tests then cover it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regionedit.generators.base import DifferentiableGenerator, Generator, Need, TextComparer, Watch, noise_seed
from regionedit.generators.diffusers_inpaint import DiffusersInpaint
from regionedit.generators.instruct_pix2pix import InstructPix2Pix
from regionedit.generators.masked_token import MaskedToken
from regionedit.generators.next_scale import NextScale
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

ONLY: dict[str, tuple[object, tuple[str, ...]]] = {
    "decoder": (None, ("stable_diffusion",)),
    "start": (1.0, ("instruct_pix2pix",)),
    "latent_blend": (False, ("instruct_pix2pix",)),
    "modulation": (False, ("instruct_pix2pix",)),
    "disentangle": (False, ("instruct_pix2pix",)),
    "temperature": (2.0, ("masked_token",)),
    "pipeline": (None, ("diffusers_inpaint",)),
    "strength": (None, ("diffusers_inpaint",)),
    "scheduler": (None, ("diffusers_inpaint",)),
    "lora": (None, ("diffusers_inpaint",)),
    "safety_checker": ("keep", ("diffusers_inpaint",)),
    "offload": ("none", ("diffusers_inpaint",)),
    "compile": (False, ("diffusers_inpaint",)),
    "token_temperature": (1.0, ("next_scale",)),
    "top_k": (0, ("next_scale",)),
    "checkout": (None, ("next_scale",)),
}
"""Settings that only some generators use: the value that all others require, and the generators that use it."""

__all__ = [
    "GENERATORS",
    "DifferentiableGenerator",
    "DiffusersInpaint",
    "Generator",
    "InstructPix2Pix",
    "MaskedToken",
    "Need",
    "NextScale",
    "StableDiffusion",
    "TextComparer",
    "Watch",
    "load_generator",
    "noise_seed",
    "require_generator",
    "require_gradient",
    "require_settings",
    "settled",
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


def require_settings(config: GeneratorConfig) -> None:
    """Reject a setting that this generator ignores: its pictures could be mistaken for pictures made with the setting.

    Raises:
        ValueError: names the setting.
    """
    for setting, (neutral, names) in ONLY.items():
        if config.name not in names and getattr(config, setting) != neutral:
            raise ValueError(
                f"generator.{setting}: only {' and '.join(names)} uses this setting; leave it at {neutral}, or use "
                "that generator"
            )


def load_generator(config: GeneratorConfig, device: str | torch.device = "cpu") -> Generator:
    """Load the frozen generator of a configuration onto a device.

    Raises:
        ValueError: unknown `generator.name`, nothing that can be loaded at `generator.path`, or a setting that this
            generator ignores.
    """
    require_settings(config)
    return require_generator(config.name).load(settled(config, device)).to(device)


def settled(config: GeneratorConfig, device: str | torch.device) -> GeneratorConfig:
    """`config` with precision `auto` replaced by the precision for this device.

    Raises:
        ValueError: unknown `generator.name`.
    """
    return replace(config, precision=require_generator(config.name).precision_of(config, device))
