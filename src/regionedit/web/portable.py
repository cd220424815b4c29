"""Writes a result as one PNG that contains its run.json and its region, and reads both from such a file.

The PNG does not contain the source: pictures are often edited to hide something, and the file may be passed on. To
reproduce the edit, the user has to provide the source again.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regionedit.images import open_picture, png

if TYPE_CHECKING:
    from regionedit.records import EditResult

RECORD, MASK = "regionedit.run.json", "regionedit.mask.png"


def portable_png(result: EditResult) -> bytes:
    """The edited picture, bit for bit, as a PNG with two text chunks: run.json, and mask.png in base64."""
    chunks = PngInfo()
    chunks.add_text(RECORD, json.dumps(result.record))  # JSON in ASCII, as a tEXt chunk requires
    chunks.add_text(MASK, base64.b64encode(png(result.mask)).decode())
    buffer = io.BytesIO()
    profile = result.image.info.get("icc_profile")
    result.image.save(buffer, "PNG", icc_profile=profile, compress_level=4, pnginfo=chunks)
    return buffer.getvalue()


def read_portable(path: str | Path, max_pixels: int) -> tuple[dict[str, Any], Image.Image]:
    """Read the run.json and the mask (mode "L") from a result's PNG.

    Raises:
        ValueError: the file is not a picture, or contains no record.
    """
    open_picture(path, max_pixels)
    try:
        with Image.open(path) as picture:
            size, chunks = picture.size, dict(picture.info)
        record = json.loads(chunks[RECORD])
        mask = Image.open(io.BytesIO(base64.b64decode(chunks[MASK], validate=True)))
        if not isinstance(record, dict) or mask.size != size or mask.format != "PNG":
            raise ValueError
        return record, mask.convert("L")
    except (KeyError, ValueError, OSError, binascii.Error, SyntaxError):
        raise ValueError(
            "picture: it contains no run.json; use a PNG that was downloaded here and not saved again elsewhere"
        ) from None
