"""Pictures for people: a region shown on its picture, and sheets of pictures with titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

TINT = (255, 0, 128)


def overlay(picture: Image.Image, mask: Image.Image, opacity: float = 0.4) -> Image.Image:
    """The picture with the edited region tinted by its strength and outlined; all are of one size."""
    from scipy.ndimage import minimum_filter

    shown, box = picture.convert("RGB").copy(), mask.getbbox()
    if box is None:
        return shown
    cut = np.asarray(mask.convert("L").crop(box))
    weights = cut[..., None].astype(np.float32) / 255 * opacity
    tinted = np.asarray(shown.crop(box)) * (1 - weights) + np.array(TINT, np.float32) * weights
    thickness = 2 * max(1, round(max(picture.size) / 400)) + 1
    hard = cut > 127
    tinted[hard & ~minimum_filter(hard, thickness, mode="constant", cval=0)] = TINT
    shown.paste(Image.fromarray(tinted.round().astype(np.uint8)), box[:2])
    return shown


def grid(
    rows: Sequence[Sequence[Image.Image]], header: Sequence[str] = (), cell: int = 128, gap: int = 4
) -> Image.Image:
    """Rows of pictures on one white sheet, each scaled into a square cell, with a title over each column."""
    columns = max(len(row) for row in rows)
    top = 16 if header else 0
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, len(rows) * (cell + gap) + gap + top), "white")
    for column, title in enumerate(header):
        ImageDraw.Draw(sheet).text((gap + column * (cell + gap), 3), title, fill="black")
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            enlarged = max(picture.size) < cell
            shown = ImageOps.contain(
                picture.convert("RGB"), (cell, cell), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
            )
            sheet.paste(shown, (gap + c * (cell + gap), top + gap + r * (cell + gap)))
    return sheet
