"""Mask files: the one reader behind infer.py, request files, the HTTP API and the page.

`mask_meaning` decides what the values mean; this module opens the file, turns it upright and compares its size.
Shape letters: H W pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.images import MAX_PIXELS, decode, has_alpha, is_animated, require_mask_size, upright
from regionedit.mask_meaning import Meaning, by_brightness, by_numbers, by_transparency, refuse_numbers
from regionedit.picture_files import stored_orientation

MASK_IS = ("auto", "alpha", "luma", "inverted")
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")
"""Formats that scatter black and white into greys; WebP, AVIF and JPEG 2000 also have lossless forms, which Pillow does
not tell apart."""


@dataclass(frozen=True)
class MaskReading:
    """How to read a mask file.

    Args:
        mask_is: `auto` decides from the file; `alpha`: what is opaque is edited; `luma`: what is bright and not
            transparent; `inverted`: what is transparent or, in a file without transparent parts, what is dark.
        mask_soft: whether grey values are edited in part; false: values of 128 and more are edited, the others are not.
            None: true in lossless files, false in JPEG and its like, where black and white are blurred.
        mask_value: edit exactly these values: one whole number or several ("3", "3,7"), or a colour ("#ff0000");
            empty: `mask_is` decides.

    Raises ValueError: an unknown `mask_is`, or a `mask_value` that is neither numbers nor a colour.
    """

    mask_is: str = "auto"
    mask_soft: bool | None = None
    mask_value: str = ""

    def __post_init__(self):
        if self.mask_is not in MASK_IS:
            raise ValueError(f"mask_is: {self.mask_is!r} is unknown; there are: {', '.join(MASK_IS)}")
        if self.mask_value and not re.fullmatch(r"#[0-9a-fA-F]{6}|\d{1,9}(\s*,\s*\d{1,9})*", self.mask_value.strip()):
            raise ValueError(
                f"mask_value: {self.mask_value[:40]!r} is no whole number (several: 3,7) and no colour such as #ff0000"
            )


AUTO = MaskReading()


def open_mask(
    path: str | Path,
    reading: MaskReading = AUTO,
    picture: Image.Image | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Open a mask file as mode "L", 255 = edit; `info["notes"]` says how it was read.

    Args:
        picture: the upright picture that the mask belongs to. None: it is not known, and nothing is compared with it.

    Raises:
        ValueError: as `open_picture`; a mask of another size than the picture; a file that is no mask, or can be
            read in two ways. The message is one line that names the file and the setting that helps.
    """
    stored = decode(Path(path), max_pixels)
    try:
        return understand(stored, reading, picture)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(("mask:", "mask_")) else f"mask {path}: {message}") from None


def understand(mask: Image.Image, reading: MaskReading = AUTO, picture: Image.Image | None = None) -> Image.Image:
    """Any PIL picture as a mask; arguments, result and errors as for `open_mask`."""
    notes = ["animated: the mask's first frame was taken"] if is_animated(mask) else []
    lossy = getattr(mask, "format", None) in LOSSY
    path = mask.info.get("path", "")
    turned, orientation_note = _turned(mask, picture)
    if picture is not None:
        require_mask_size(turned, picture)
    meaning = _meaning(turned, reading, picture, lossy)
    edit_HW, words = meaning.edit_HW, meaning.words
    soft = not lossy if reading.mask_soft is None else reading.mask_soft
    partial = int(((edit_HW > 0) & (edit_HW < 255)).sum())
    if partial and not soft:
        edit_HW = (edit_HW >= 128).astype(np.uint8) * 255
        words += ", its greys cut at one half"
    elif partial and reading.mask_soft is None:
        words += f", {partial} {'pixel' if partial == 1 else 'pixels'} in part"
    share = (edit_HW > 0).mean()
    if share in (0, 1):
        words += f" ({'nothing' if share == 0 else 'the whole picture'})"
    result = Image.fromarray(np.ascontiguousarray(edit_HW))
    result.info = {"notes": [f"mask: {words}", *filter(None, [*notes, orientation_note])], "path": str(path)}
    return result


def widened(drawn: Image.Image, mask: Image.Image) -> str:
    """How many pixels of the region (`mask`, mode "L") are not in the mask file (`drawn`), or empty."""
    more = int(((np.asarray(mask) > 0) & (np.asarray(drawn) == 0)).sum())
    return f"mask: {more} pixels were added to it by region.grow, region.feather or another setting" if more else ""


def _meaning(mask: Image.Image, reading: MaskReading, picture: Image.Image | None, lossy: bool) -> Meaning:
    if reading.mask_value:
        return _of_value(mask, reading.mask_value.strip())
    shown = _eight_bit(mask)
    if reading.mask_is == "auto" and not reading.mask_soft and mask.mode.startswith("I"):
        distinct = np.unique(np.asarray(mask))
        if len(distinct) > 2 and distinct[-1] > 255:
            refuse_numbers(np.asarray(mask), distinct, len(distinct) > len(np.unique(np.asarray(shown.getchannel(0)))))
    rgba = shown.convert("RGBA") if shown.has_transparency_data else None
    if rgba is not None and rgba.getchannel("A").getextrema()[0] == 255:
        shown, rgba = rgba.convert("RGB"), None  # opaque after all
    if rgba is not None:
        return _of_transparent(rgba, reading, picture, lossy)
    grey_HW = np.asarray(shown.convert("RGB" if shown.mode not in ("1", "L") else "L").convert("L"))
    if reading.mask_is == "alpha":
        raise ValueError("mask_is: alpha, but the mask has no transparent part; use auto or luma")
    if reading.mask_is == "luma":
        return Meaning(grey_HW, "what is bright is edited")
    if reading.mask_is == "inverted":
        return Meaning(255 - grey_HW, "what is dark is edited")
    rgb_HW3 = None if shown.mode in ("1", "L") else np.asarray(shown.convert("RGB"))
    return by_brightness(grey_HW, rgb_HW3, lossy, reading.mask_soft)


def _of_transparent(rgba: Image.Image, reading: MaskReading, picture: Image.Image | None, lossy: bool) -> Meaning:
    alpha_HW = np.asarray(rgba.getchannel("A"))
    if reading.mask_is == "alpha":
        return Meaning(alpha_HW, "what is opaque is edited")
    if reading.mask_is == "inverted":
        return Meaning(255 - alpha_HW, "what is transparent is edited")
    if reading.mask_is == "luma":
        grey_HW = np.asarray(rgba.convert("RGB").convert("L"))
        return Meaning((grey_HW * (alpha_HW / 255)).round().astype(np.uint8), "what is bright is edited")
    source_HW3 = np.asarray(picture.convert("RGB")) if picture is not None else None
    return by_transparency(np.asarray(rgba), source_HW3, lossy)


def _of_value(mask: Image.Image, wanted: str) -> Meaning:
    """The pixels of one colour, or of numbers: the numbers of a palette, or grey values as they are stored."""
    if wanted.startswith("#"):
        colour = tuple(bytes.fromhex(wanted[1:]))
        edit_HW = (np.asarray(mask.convert("RGB")) == colour).all(-1) & _visible(mask)
        if not edit_HW.any():
            raise ValueError(f"mask_value: {wanted} does not occur in the mask")
        return Meaning(edit_HW.astype(np.uint8) * 255, f"the colour {wanted} is edited")
    numbers = tuple(int(part) for part in wanted.split(","))
    if mask.mode in ("I", "F", "1") or mask.mode.startswith("I;"):
        return by_numbers(np.asarray(mask).astype(np.float64), numbers)
    if mask.info.get("file_bits", 8) > 8:
        raise ValueError("mask_value: the mask has colours or alpha of more than 8 bits; save it as grey")
    rgb_HW3 = np.asarray(mask.convert("RGB"))
    grey = (rgb_HW3 == rgb_HW3[..., :1]).all()
    if mask.mode == "P" and (not grey or np.isin(numbers, np.asarray(mask)).all()):
        return by_numbers(np.asarray(mask), numbers)
    if grey:
        return by_numbers(rgb_HW3[..., 0], numbers, _visible(mask))
    raise ValueError("mask_value: the mask has colours and no numbers; give a colour such as #ff0000")


def _visible(mask: Image.Image) -> np.ndarray:
    """Where the mask is not wholly transparent."""
    return np.asarray(mask.convert("RGBA").getchannel("A")) > 0 if has_alpha(mask) else np.ones(mask.size[::-1], bool)


def _eight_bit(mask: Image.Image) -> Image.Image:
    """Integers and floats as mode "L", or "LA" with a transparent value, scaled by the depth that the values have;
    others as they are.

    Raises ValueError: negative or undefined values.
    """
    if not (mask.mode == "F" or mask.mode.startswith("I")):
        return mask
    values_HW = np.asarray(mask).astype(np.float64)
    if not np.isfinite(values_HW).all() or values_HW.min() < 0:
        raise ValueError("negative or undefined values; save the mask with 255 = edit")
    highest = float(values_HW.max())
    if mask.mode == "F" and highest <= 1:
        full = 1.0
    else:  # 8, 10, 12, 14 or 16 bits in a larger file, where the highest value says so; else the values stay small
        full = next((top for top in (1023.0, 4095.0, 16383.0) if highest == top), 255.0 if highest <= 255 else 65535.0)
    if highest > full or 255 < highest < full / 2:
        raise ValueError(f"values up to {highest:g} of {full:g}; save the mask with 255 = edit, or give mask_value")
    shown = Image.fromarray((values_HW * (255 / full)).round().astype(np.uint8))
    if isinstance(clear := mask.info.get("transparency"), int):
        shown.putalpha(Image.fromarray(np.where(values_HW == clear, 0, 255).astype(np.uint8)))
    return shown


def _turned(mask: Image.Image, picture: Image.Image | None) -> tuple[Image.Image, str]:
    """The mask, turned as its EXIF data says, and a warning if its orientation is not certain.

    Raises ValueError: it has the size of the picture as it is stored, which is turned.
    """
    turned = picture.info.get("exif_orientation") if picture is not None else None
    own = stored_orientation(mask)
    mask, _ = upright(mask)
    if turned is None or own is not None:
        return mask, ""
    if mask.size != picture.size and mask.size == picture.size[::-1]:
        raise ValueError(
            f"mask: {mask.width}x{mask.height} is the picture's size before its EXIF data turns it to "
            f"{picture.width}x{picture.height}; draw the mask on the upright picture, or keep the EXIF data in the mask"
        )
    if picture.width != picture.height and turned >= 5:
        return mask, ""  # only an upright mask has the upright picture's size
    return mask, "mask: EXIF data turned the picture, but the mask has none and was not turned; see overlay.png"
