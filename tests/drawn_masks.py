"""Masks as people draw and save them, and the pictures that they belong to."""

import io

import numpy as np
from PIL import Image, ImageDraw

from regionedit.images import upright_rgb

SIZE = (60, 44)
BOX = (12, 10, 31, 33)  # x1 and y1 are excluded
EDIT = np.zeros(SIZE[::-1], bool)
EDIT[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True


def photograph(seed: int = 0) -> Image.Image:
    """Soft coloured areas with grain, as a camera gives them."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(20, 230, (5, 6, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(low) + rng.normal(0, 8, (*SIZE[::-1], 3))).clip(0, 255).astype(np.uint8))


def flat_picture() -> Image.Image:
    """A drawing in flat colours, like those of the microworld."""
    drawing = Image.new("RGB", SIZE, (235, 235, 220))
    ImageDraw.Draw(drawing).ellipse((5, 5, 25, 25), fill=(200, 30, 40))
    ImageDraw.Draw(drawing).rectangle((35, 20, 55, 40), fill=(30, 60, 200))
    return drawing


PICTURE = upright_rgb(photograph())


def white(mode: str = "L", on=255, off=0) -> Image.Image:
    values = np.where(EDIT, on, off)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def layer(colour, opacity: int = 255) -> Image.Image:
    """A stroke on a transparent layer."""
    rgba = np.zeros((*SIZE[::-1], 4), np.uint8)
    rgba[EDIT] = (*colour, opacity)
    return Image.fromarray(rgba)


def hole(picture: Image.Image) -> Image.Image:
    """The picture with the part to edit erased."""
    rgba = np.asarray(picture.convert("RGBA")).copy()
    rgba[EDIT] = 0
    return Image.fromarray(rgba)


def palette_layer() -> Image.Image:
    """One opaque colour of a palette, the other transparent, as GIF and PNG-8 have it."""
    indices = Image.fromarray(EDIT.astype(np.uint8)).convert("L")
    made = Image.frombytes("P", SIZE, indices.tobytes())
    made.putpalette([0, 0, 0, 0, 120, 30])
    made.info["transparency"] = 0
    return made


def grey_palette() -> Image.Image:
    """Number 7 of a palette, where it is grey, as in the masks of Pascal VOC."""
    made = Image.frombytes("P", SIZE, (EDIT * 7).astype(np.uint8).tobytes())
    made.putpalette([0] * 21 + [128] * 3)
    return made


def stored(picture: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    """What a file of this format holds, with the attributes that Pillow gives an opened file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    buffer.seek(0)
    opened = Image.open(buffer)
    opened.load()
    return opened


def numbers(values, dtype=np.uint8) -> Image.Image:
    """Numbered objects: stripes of the given values on 0."""
    pixels = np.zeros(SIZE[::-1], dtype)
    for place, value in enumerate(values):
        pixels[5:35, 3 + 9 * place : 10 + 9 * place] = value
    return Image.fromarray(pixels)


def on_black(colour: str) -> Image.Image:
    return Image.composite(Image.new("RGB", SIZE, colour), Image.new("RGB", SIZE), white())


def cut_out() -> Image.Image:
    """The object itself, the rest erased, as tools that remove backgrounds save it."""
    rgba = np.asarray(PICTURE.convert("RGBA")).copy()
    rgba[~EDIT] = 0
    return Image.fromarray(rgba)


def map_of_colours() -> Image.Image:
    mask = Image.new("RGB", SIZE)
    for place, colour in enumerate(("#e01020", "#10e020", "#2010e0")):
        mask.paste(colour, (5 + 18 * place, 5, 15 + 18 * place, 30))
    return mask


def gradient() -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1)))


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()
