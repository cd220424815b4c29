"""Reads a benchmark's pictures in the same way as its authors' scripts."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def open_stored(source: Path | bytes, name: str) -> Image.Image:
    """A stored picture in its own mode; the format is detected from the content, because suffixes may be wrong.

    Args:
        source: a file, or the bytes of one.
        name: for the message.

    Raises:
        ValueError: the picture is missing, empty, not a picture, or damaged.
    """
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        picture.load()
    except Exception as error:  # decoders raise many types for a damaged file: OSError, SyntaxError, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ValueError(f"data: {name} is not a picture that can be read: {reason}") from None
    return picture


def open_rgb(source: Path | bytes, name: str) -> Image.Image:
    """A stored picture after `convert("RGB")`, as in MagicBrush's `image_eval.py` and the scripts derived from it.

    Transparency is dropped, not flattened onto a colour, and EXIF rotation is not applied.

    Raises:
        ValueError: as `open_stored`.
    """
    rgb = open_stored(source, name).convert("RGB")
    rgb.info = {"notes": [], "path": name}  # makes `images.upright_rgb` return it unchanged
    return rgb
