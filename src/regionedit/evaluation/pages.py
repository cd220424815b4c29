"""What every HTML page of this package needs: its template, and pictures inside the page."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from regionedit.images import data_uri, png


def render(template: str, **values: object) -> str:
    """The HTML of a template of this folder; the values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(template).render(values)


def picture_uri(picture: Image.Image, lossless: int, **jpeg: int) -> str:
    """The picture as RGB inside a URL, without its file's metadata.

    Args:
        lossless: longest side in pixels up to which it is a PNG; a larger picture is a JPEG.
        jpeg: quality and subsampling, as PIL calls them.
    """
    bare = Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())
    if max(picture.size) <= lossless:
        return data_uri(png(bare))
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", **jpeg)
    return data_uri(buffer.getvalue(), "jpeg")
