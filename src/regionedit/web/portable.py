"""A result as one PNG that carries its run.json and its region, and what can be read back from such a file.

The source is not in it: a picture is often edited to hide something, and the file that is passed on must not bring it
along. To make the same edit again, the source has to be given again.
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
    carried = PngInfo()
    carried.add_text(RECORD, json.dumps(result.record))  # plain ASCII, which a tEXt chunk can hold
    carried.add_text(MASK, base64.b64encode(png(result.mask)).decode())
    buffer = io.BytesIO()
    profile = result.image.info.get("icc_profile")
    result.image.save(buffer, "PNG", icc_profile=profile, compress_level=4, pnginfo=carried)
    return buffer.getvalue()


def read_portable(path: str | Path, max_pixels: int) -> tuple[dict[str, Any], Image.Image]:
    """The run.json and the mask (mode "L") that a result's PNG carries.

    Raises:
        ValueError: no picture, or one that carries no record.
    """
    open_picture(path, max_pixels)
    try:
        with Image.open(path) as picture:
            size, carried = picture.size, dict(picture.info)
        record = json.loads(carried[RECORD])
        mask = Image.open(io.BytesIO(base64.b64decode(carried[MASK], validate=True)))
        if not isinstance(record, dict) or mask.size != size or mask.format != "PNG":
            raise ValueError
        return record, mask.convert("L")
    except (KeyError, ValueError, OSError, binascii.Error, SyntaxError):
        raise ValueError(
            "picture: it carries no run.json; drop in a PNG that was downloaded here and not saved again since"
        ) from None
