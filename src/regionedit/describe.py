"""Captions for requests that bring none: what the picture shows (t_o), and what it shall show (t_e).

A describer sees pixels and the instruction, never the truth of a case. To add one: a class, a line in `DESCRIBERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from regionedit.images import digest
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import DescribeConfig
    from regionedit.microworld.commands import Command
    from regionedit.microworld.scene import Scene


class Describer(ABC):
    """Writes captions, once for each (picture, instruction)."""

    def __init__(self):
        self._known: dict[tuple[str, str], Captions] = {}

    @classmethod
    def load(cls, config: DescribeConfig) -> Self:
        return cls()

    def describe(self, pictures: Sequence[Image], instructions: Sequence[str]) -> list[Captions]:
        """Captions of RGB pictures, one instruction each; remembered by the picture's content.

        Raises:
            ValueError: a picture or instruction that this describer cannot put into words, and what to do.
        """
        keys = [(digest(picture), text) for picture, text in zip(pictures, instructions, strict=True)]
        new = {key: place for place, key in enumerate(keys) if key not in self._known}
        if new:
            made = self._describe([pictures[p] for p in new.values()], [instructions[p] for p in new.values()])
            self._known.update(zip(new, made, strict=True))
        return [self._known[key] for key in keys]

    @abstractmethod
    def _describe(self, pictures: Sequence[Image], instructions: Sequence[str]) -> list[Captions]:
        """Captions of pictures that were not asked for before."""


class Given(Describer):
    """Describes nothing: every request has to bring its captions."""

    def _describe(self, pictures: Sequence[Image], instructions: Sequence[str]) -> list[Captions]:
        others = ", ".join(name for name in DESCRIBERS if name != "given")
        raise ValueError(
            "captions: the request brings none and describe.name is `given`; pass --target_caption (and "
            f"--source_caption for clip_similarity), or --describe.name {others}"
        )


class Microworld(Describer):
    """Reads a microworld picture's pixels and applies the instruction to what it read."""

    def _describe(self, pictures: Sequence[Image], instructions: Sequence[str]) -> list[Captions]:
        from regionedit.microworld import commands, pixel_check
        from regionedit.microworld.scene import SIZE

        made = []
        for picture, instruction in zip(pictures, instructions, strict=True):
            command = commands.parse(instruction)
            scene = pixel_check.read_scene(np.asarray(picture.convert("RGB").resize((SIZE, SIZE))))
            made.append(Captions(*commands.captions_of(_believe(scene, command), command)))
        return made


def _believe(scene: Scene, command: Command) -> Scene:
    """Add what the instruction speaks of and the pixels did not show: the person who asked sees it."""
    from regionedit.microworld.scene import Thing

    for pair in (command.named, command.anchor):
        if pair and not any(t.shape == pair[1] and pair[0] in (None, t.color) for t in scene.things) and pair[0]:
            scene = replace(scene, things=(*scene.things, Thing(pair[1], pair[0], 0, 0, 10)))
    return scene


DESCRIBERS: dict[str, type[Describer]] = {
    "given": Given,
    "microworld": Microworld,
}


def require_describer(name: str) -> type[Describer]:
    """The class behind `describe.name`; loads nothing.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in DESCRIBERS:
        raise ValueError(f"describe.name: no describer {name!r}; there are: {', '.join(sorted(DESCRIBERS))}")
    return DESCRIBERS[name]
