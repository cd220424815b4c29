"""Draw docs/pictures/: mask files and how they are read, and the mask operations.

    python -m experiments.mask_figures

Runs no model. The pictures show what `mask_files.understand` and `mask_operations` do to drawn examples.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from regionedit.display import grid, overlay
from regionedit.files import write_atomic
from regionedit.images import open_picture, png
from regionedit.mask_files import understand
from regionedit.mask_operations import OPERATIONS

ROOT = Path(__file__).parents[1]
SIDE = 104
SQUARE = 13
RING, WIDTH = (24, 28, 72, 76), 12  # box and stroke of the drawn ring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder for the pictures")
    out = parser.parse_args().out
    picture = open_picture(ROOT / "docs" / "examples" / "ring.png").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    picture.info = {"notes": []}
    _write(out / "masks.png", of_mask_files(picture))
    _write(out / "operations.png", of_operations(picture))


def of_mask_files(picture: Image.Image) -> Image.Image:
    """Upper row: mask files, transparent parts chequered; lower row: the region that is read, or "refused"."""
    files = mask_files(picture)
    shown = [chequered(mask) for mask in files.values()]
    understood = [_understood(mask, picture) for mask in files.values()]
    return grid([shown, understood], list(files), SIDE)


def of_operations(picture: Image.Image) -> Image.Image:
    """A drawn mask with a hole and a speck, and after each operation."""
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).ellipse(RING, outline=255, width=WIDTH)
    ImageDraw.Draw(mask).ellipse((84, 12, 94, 22), fill=255)
    drawn_HW = np.asarray(mask, np.float32) / 255
    results = {"drawn": drawn_HW} | {name: function(drawn_HW) for name, function in OPERATIONS.items()}
    cells = [overlay(picture, Image.fromarray((m_HW * 255).astype(np.uint8))) for m_HW in results.values()]
    return grid([cells], list(results), SIDE)


def mask_files(picture: Image.Image) -> dict[str, Image.Image]:
    """Title -> a mask file as users may have it."""
    white, layer = Image.new("L", picture.size), Image.new("RGBA", picture.size)
    ImageDraw.Draw(white).ellipse(RING, fill=255)
    ImageDraw.Draw(layer).ellipse(RING, outline=(220, 0, 0, 255), width=WIDTH)
    hole = picture.convert("RGBA")
    hole.putalpha(white.point(lambda value: 255 - value))
    numbers = white.point(lambda value: 3 if value else 0)
    ImageDraw.Draw(numbers).rectangle((8, 70, 40, 96), fill=7)
    lossy = io.BytesIO()
    white.save(lossy, "JPEG", quality=30)
    return {
        "white on black": white,
        "a hole": hole,
        "a red layer": layer,
        "JPEG": Image.open(lossy),
        "values 0, 3, 7": numbers,
        "a picture": picture,
    }


def chequered(mask: Image.Image) -> Image.Image:
    """The file as an image viewer shows it; transparent parts become grey squares."""
    rows, columns = np.indices(mask.size[::-1]) // SQUARE
    squares = Image.fromarray(np.where((rows + columns) % 2, 200, 240).astype(np.uint8)).convert("RGBA")
    return Image.alpha_composite(squares, mask.convert("RGBA")).convert("RGB")


def _understood(mask: Image.Image, picture: Image.Image) -> Image.Image:
    try:
        return overlay(picture, understand(mask, picture=picture))
    except ValueError:
        refused = Image.new("RGB", picture.size, "white")
        ImageDraw.Draw(refused).text((SIDE // 2, SIDE // 2), "refused", fill="black", anchor="mm", font_size=16)
        return refused


def _write(path: Path, picture: Image.Image) -> None:
    few = picture.quantize(64, dither=Image.Dither.NONE)  # a quarter of the bytes, without a visible difference
    write_atomic(path, png(few))


if __name__ == "__main__":
    main()
