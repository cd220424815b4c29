"""Settings that had other names in earlier versions, which stored them in checkpoints, features and proposals."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "generator.steps": "generator.num_inference_steps",
    "generator.guidance": "generator.guidance_scale",
    "generator.image_guidance": "generator.image_guidance_scale",
    "generator.start": "generator.strength",
    "generator.blend": "generator.latent_blend",
    "generator.precision": "generator.dtype",
    "generator.token_temperature": "generator.temperature",
    "region.attention.steps": "region.attention.num_inference_steps",
    "region.attention.guidance": "region.attention.guidance_scale",
    "region.attention.image_guidance": "region.attention.image_guidance_scale",
    "region.attention.start": "region.attention.strength",
    "region.attention.precision": "region.attention.dtype",
    "region.unfound": "region.if_empty",
    "encoders.precision": "encoders.dtype",
    "describe.precision": "describe.dtype",
    "savers": "memory",
    "savers.chunk": "memory.chunk",
    "savers.frozen_convolutions": "memory.frozen_convolutions",
    "savers.checkpoint": "memory.checkpoint",
    "savers.compile": "generator.compile",
}
"""Key of an earlier version -> its present name."""

ONCE_READ_BY = {
    "generator.blend": "stable_diffusion",
    "generator.start": "instruct_pix2pix",
    "generator.token_temperature": "next_scale",
}
"""Renamed keys whose present name was another setting in that version -> the one generator that read the key."""


def under_present_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Flat settings (dotted key -> value) that an earlier version may have stored, under their present names.

    That version stored the settings of all generators for each of them, and some different settings now share a name.
    Of these, the one that this generator read is kept.
    """
    generator = settings.get("generator.name")
    present = {key: value for key, value in settings.items() if key not in RENAMED}
    for old, new in RENAMED.items():
        if old in settings and ONCE_READ_BY.get(old, generator) == generator:
            present[new] = settings[old]
    return present
