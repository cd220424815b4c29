"""Pictures to look at: a region or heat map drawn onto its picture, and sheets of pictures with titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

TINT = (255, 0, 128)
TINTS = (TINT, (0, 160, 255), (255, 170, 0), (0, 190, 90), (140, 80, 255))
OPACITY = 0.4
HEAT = 0.7
GAP = 4  # pixels between the cells of a sheet


def overlay(picture: Image.Image, *masks: Image.Image) -> Image.Image:
    """The picture, RGB, with each mask of mode "L" tinted by its values and outlined, in a colour of its own; all have
    one size."""
    shown = picture.convert("RGB").copy()
    for index, mask in enumerate(masks):
        _tint(shown, mask, TINTS[index % len(TINTS)])
    return shown


def heat_map(picture: Image.Image, probability_HW: np.ndarray, mask: Image.Image) -> Image.Image:
    """The picture under a colour map, more opaque for higher values in [0, 1], with the outline of the mask; RGB.

    Args:
        probability_HW, mask: of the picture's size; the mask has mode "L", and above 0 is inside.
    """
    from matplotlib import colormaps
    from scipy.ndimage import binary_erosion

    colours = (colormaps["plasma"](np.arange(256))[:, :3] * 255).astype(np.float32)
    probability_HW = np.clip(probability_HW, 0, 1).astype(np.float32)
    weights = HEAT * np.sqrt(probability_HW)[..., None]
    coloured = colours[(probability_HW * 255).round().astype(np.uint8)]
    shown = np.asarray(picture.convert("RGB")) * (1 - weights) + coloured * weights
    thickness = max(1, round(max(picture.size) / 300))
    inside = np.asarray(mask) > 0
    core = binary_erosion(inside, iterations=thickness, border_value=1)
    shown[inside & ~core] = 255
    shown[core & ~binary_erosion(core, iterations=thickness, border_value=1)] = 0
    return Image.fromarray(shown.round().astype(np.uint8))


def difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """Change of each pixel, maximum over channels, mode "L": 0 where nothing changed, 255 for the largest change."""
    change = np.abs(np.asarray(after, np.int16) - np.asarray(before, np.int16)).max(-1)
    return Image.fromarray((change * (255 / max(1, change.max()))).round().astype(np.uint8))


def _tint(shown: Image.Image, mask: Image.Image, colour: tuple[int, int, int]) -> None:
    from scipy.ndimage import minimum_filter

    box = mask.getbbox()
    if box is None:
        return
    cut = np.asarray(mask.convert("L").crop(box))
    weights = cut[..., None].astype(np.float32) / 255 * OPACITY
    tinted = np.asarray(shown.crop(box)) * (1 - weights) + np.array(colour, np.float32) * weights
    thickness = 2 * max(1, round(max(shown.size) / 400)) + 1
    hard = cut > 127
    tinted[hard & ~minimum_filter(hard, thickness, mode="constant", cval=0)] = colour
    shown.paste(Image.fromarray(tinted.round().astype(np.uint8)), box[:2])


def grid(rows: Sequence[Sequence[Image.Image]], header: Sequence[str] = (), cell: int = 128) -> Image.Image:
    """Rows of pictures on one white sheet, each scaled into a square of `cell` pixels, with a title over each column.

    With titles, the sheet has 16 more rows of pixels at the top.
    """
    columns = max(len(row) for row in rows)
    top = 16 if header else 0
    sheet = Image.new("RGB", (columns * (cell + GAP) + GAP, len(rows) * (cell + GAP) + GAP + top), "white")
    for column, title in enumerate(header):
        ImageDraw.Draw(sheet).text((GAP + column * (cell + GAP), 3), title, fill="black")
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            enlarged = max(picture.size) < cell
            shown = ImageOps.contain(
                picture.convert("RGB"), (cell, cell), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
            )
            sheet.paste(shown, (GAP + c * (cell + GAP), top + GAP + r * (cell + GAP)))
    return sheet
