"""Captions of microworld pictures, read from their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from regionedit.describe.base import Describer
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.describe.base import CaptionKey
    from regionedit.microworld.scene import Scene


class Microworld(Describer):
    """Reads the scene from a microworld picture's pixels, applies the instructions to it one after another, and writes
    both captions."""

    def source_captions(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        return [caption(picture) for picture in pictures]

    def _write(self, keys: Sequence[CaptionKey], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        from regionedit.microworld import commands

        written: list[Captions | ValueError] = []
        for (_, texts), picture in zip(keys, pictures, strict=True):
            try:
                edits = [commands.parse(text) for text in texts]
                written.append(Captions(*commands.captions_of(read(picture), *edits, believe=True)))
            except ValueError as error:
                written.append(error)
        return written


def read(picture: Image) -> Scene:
    """The scene that a picture of any size shows."""
    from regionedit.microworld import pixel_check
    from regionedit.microworld.scene import SIZE

    return pixel_check.read_scene(np.asarray(picture.convert("RGB").resize((SIZE, SIZE))))


def caption(picture: Image) -> str:
    """The source caption of a picture, independent of any instruction."""
    from regionedit.microworld.grammar import CaptionStyle, caption_in_style

    return caption_in_style(read(picture), CaptionStyle())
