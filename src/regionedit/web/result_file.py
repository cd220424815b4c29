"""A result as one PNG that contains its run.json and its region; from such a file, the edit can be repeated.

The PNG does not contain the source: pictures are often edited to hide something, and the file may be passed on. To
reproduce the edit, the user has to provide the source again.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regionedit.images import open_picture, png
from regionedit.originals import encoded, source_digest
from regionedit.records import Captions
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch

if TYPE_CHECKING:
    from regionedit.config import RegionConfig
    from regionedit.records import EditResult

RESTORED = "restored from the file"
RECORD, MASK = "regionedit.run.json", "regionedit.mask.png"


def result_png(result: EditResult) -> bytes:
    """The edited picture, bit for bit, as a PNG with two text chunks: run.json, and mask.png in base64."""
    chunks = PngInfo()
    chunks.add_text(RECORD, json.dumps(result.record))  # JSON in ASCII, as a tEXt chunk requires
    chunks.add_text(MASK, base64.b64encode(png(result.mask)).decode())
    return encoded(result.image, chunks=chunks)


def read_result_png(path: str | Path, max_pixels: int) -> tuple[dict[str, Any], Image.Image]:
    """Read the run.json and the mask (mode "L") from a result's PNG.

    Raises ValueError: the file is not a picture, or contains no record.
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
    except (KeyError, ValueError, OSError, SyntaxError, RecursionError, Image.DecompressionBombError):
        raise ValueError(
            "picture: it contains no run.json; use a PNG that was downloaded here and not saved again elsewhere"
        ) from None


def restored(
    record: dict[str, Any], mask: Image.Image, known: list[Image.Image], config: RegionConfig
) -> tuple[Settings, Sketch, Cut]:
    """Settings, sketch and slider values that repeat the recorded edit.

    Args:
        mask: the region of the edit, mode "L".
        known: pictures; one of them has to be the recorded source.
        config: the region settings of the page, for the threshold's slider.

    Raises ValueError: not the record of an edit, or its source is not among the known pictures.
    """
    settings = replace(Settings.of_record(record), variants=1)
    source = record.get("picture") or {}
    picture = next((one for one in known if source_digest(one) == source.get("sha256")), None)
    if picture is None:
        raise ValueError(
            f"picture: this edit was made from {str(source.get('path', 'a picture'))[:80]!r}; choose that picture "
            "on the tab Edit first, then drop the PNG here again. The PNG does not contain its source."
        )
    picture = picture.copy()
    picture.info["path"] = str(record["id"])  # names the files
    note = RESTORED if record.get("schema", 1) > 1 else f"{RESTORED} of an earlier version with other noise"
    captions = Captions(settings.source_caption, settings.target_caption)
    source = str(record.get("mask_source", ""))
    sketch = Sketch.masked(picture, mask, settings.instruction, captions=captions, mask_source=source, note=note)
    return settings, sketch, sketch.first_cut(config)
