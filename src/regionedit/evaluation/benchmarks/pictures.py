"""A benchmark's pictures, read as its authors' own scripts read them."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def open_stored(source: Path | bytes, name: str) -> Image.Image:
    """A stored picture in its own mode; its content says what format it is, its suffix may lie.

    Args:
        source: a file, or what a file holds.
        name: for the message.

    Raises:
        ValueError: missing, empty, not a picture, or damaged.
    """
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        picture.load()
    except Exception as error:  # a damaged file raises whatever its decoder stumbles over: OSError, SyntaxError, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ValueError(f"data: {name} is not a picture that can be read: {reason}") from None
    return picture


def open_rgb(source: Path | bytes, name: str) -> Image.Image:
    """A stored picture by `convert("RGB")`, as MagicBrush's `image_eval.py` and its descendants do.

    Transparency is dropped, not flattened onto a colour, and EXIF rotation is not applied.

    Raises:
        ValueError: as `open_stored`.
    """
    rgb = open_stored(source, name).convert("RGB")
    rgb.info = {"notes": [], "path": name}  # tells `images.upright_rgb` to take it as it is
    return rgb
