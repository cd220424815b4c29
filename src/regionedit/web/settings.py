"""The settings on the page, and how they become a request and a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from regionedit.records import Captions, EditRequest, Instruction
from regionedit.request_files import split_instructions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import AppConfig

MAX_TEXT = 2000
"""Most characters of all instructions together, and of a caption; `EditRequest` limits each instruction."""

MAX_INSTRUCTIONS = 8
MAX_SEED = 2**32 - 1

GENERATOR_SETTINGS = {
    "num_inference_steps": int,
    "guidance_scale": float,
    "image_guidance_scale": float,
    "strength": float,
}
"""Settings of the generators that the page offers -> their types; no generator has all of them."""


@dataclass(frozen=True)
class Settings:
    """The settings of one edit, from the page's form or the API's arguments.

    Args:
        instruction: one, or several separated by semicolons.
        strengths: one for each instruction, separated by semicolons; empty for 1. A single value applies to all.
        seed: of the first variant; each further variant adds 1.
        num_inference_steps, guidance_scale, image_guidance_scale, strength: of the generator; a setting that the
            generator does not have changes nothing.
        variants: number of pictures for one request.
        source_caption, target_caption: if empty, the describer writes them where they are needed.
    """

    instruction: str
    strengths: str = ""
    seed: int = 0
    num_inference_steps: int = 8
    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.5
    strength: float = 1.0
    variants: int = 1
    source_caption: str = ""
    target_caption: str = ""

    @classmethod
    def of(cls, config: AppConfig) -> Settings:
        """The values of the configuration, without an instruction."""
        return cls("", **{name: getattr(config.generator, name) for name in offered(config)})

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Settings:
        """Read the settings from a run.json. Raises ValueError: not a run.json of an edit."""
        try:
            generator = record["settings"]["generator"]
            _ = generator["guidance_scale"]  # every generator has it; earlier versions had other names
            captions = record["captions"] or {}
            instructions = record["instructions"]
            return cls(
                instruction="; ".join(str(i["text"]) for i in instructions),
                strengths="; ".join(f"{float(i['strength']):g}" for i in instructions),
                seed=int(record["seed"]),
                **{
                    name: kind(generator[name])
                    for name, kind in GENERATOR_SETTINGS.items()
                    if generator.get(name) is not None
                },
                source_caption=str(captions.get("source", "")),
                target_caption=str(captions.get("target", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError("record: this run.json is not that of an edit, or comes from another version") from None

    def check(self, config: AppConfig) -> None:
        """Check the page's limits. Raises ValueError: a value outside them; one sentence that begins with the field."""
        for name in ("instruction", "source_caption", "target_caption"):
            if len(getattr(self, name)) > MAX_TEXT:
                raise ValueError(f"{name}: {len(getattr(self, name))} characters, at most {MAX_TEXT} are accepted")
        bounds = {
            "seed": (0, MAX_SEED),
            "num_inference_steps": (1, config.max_steps),
            "guidance_scale": (1, 30),
            "image_guidance_scale": (1, 10),
            "strength": (0.05, 1),
            "variants": (1, config.max_variants),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ValueError(f"{name}: {value!r} is outside {low} to {high}")

    def instructions(self) -> tuple[Instruction, ...]:
        """The instructions with their strengths. Raises ValueError: too many, or strengths that do not fit them."""
        texts = split_instructions(self.instruction)
        if len(texts) > MAX_INSTRUCTIONS:
            raise ValueError(f"instruction: {len(texts)} given, at most {MAX_INSTRUCTIONS} are accepted")
        given = [part.strip() for part in self.strengths.split(";") if part.strip()] or ["1"]
        given = given * len(texts) if len(given) == 1 else given
        try:
            strengths = [float(part) for part in given]
        except ValueError:
            raise ValueError(f"strengths: {self.strengths[:40]!r} is not a number or a list such as 1; 1.5") from None
        if len(strengths) != len(texts) or not all(0 <= strength <= 10 for strength in strengths):
            raise ValueError(
                f"strengths: {len(strengths)} given for {len(texts)} instructions; give one for each, from 0 to 10"
            )
        return tuple(Instruction(text, strength) for text, strength in zip(texts, strengths, strict=True))

    def request(self, picture: Image, mask: Image | None = None, variant: int = 0) -> EditRequest:
        """The request for one variant, named after the picture as in infer.py. Raises ValueError: as `EditRequest`."""
        return EditRequest(
            image=picture,
            instructions=self.instructions(),
            seed=int(self.seed) + variant,
            captions=Captions.given(self.source_caption.strip(), self.target_caption.strip()),
            mask=mask,
            id=case_id(picture.info.get("path", "")),
        )

    def configuration(self, config: AppConfig) -> AppConfig:
        """The page's configuration with these generator settings."""
        changes = {name: GENERATOR_SETTINGS[name](getattr(self, name)) for name in offered(config)}
        return replace(config, generator=replace(config.generator, **changes))


def offered(config: AppConfig) -> list[str]:
    """The settings in `GENERATOR_SETTINGS` that this generator has; `strength: None` stays the pipeline's own."""
    return [name for name in GENERATOR_SETTINGS if getattr(config.generator, name, None) is not None]


def case_id(path: str) -> str:
    """A case id from a file name: letters, digits, dot, dash and underscore."""
    stem = re.sub(r"\.[A-Za-z]{2,5}$", "", path.replace("\\", "/").rsplit("/", 1)[-1])
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")[:100] or "picture"
