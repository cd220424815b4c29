"""Pictures: open any file as upright RGB, convert PIL <-> BCHW, encode as PNG.

Shape letters: B batch, C channels, H W pixels.
Tensors are float32 BCHW in [0, 1], masks B1HW in [0, 1] with 1 = edit; uint8 survives the round trip exactly.
Only the functions that need torch import it, so that a wrong argument is reported without loading it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from regionedit.command_line import one_line
from regionedit.files import is_file, is_folder
from regionedit.misread_files import misread, require_whole
from regionedit.picture_files import TURNS, stored_bits, stored_orientation, unread, white_of

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 50_000_000
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".mpo", ".avif", ".heic",
    ".heif", ".jp2", ".j2k", ".jpx", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".dib", ".apng", ".pcx", ".qoi", ".psd",
)  # fmt: skip
"""Endings of picture files, in lower case; HEIC needs the package pillow-heif."""
BEGINNINGS = {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"8BPS": "PSD", b"\x89PNG": "PNG"}
NO_PICTURE = "not a picture that can be read"
EXIF_AS_TEXT = ("XML:com.adobe.xmp", "Raw profile type exif")
"""Names of a PNG's texts in which Pillow finds the orientation."""


def open_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture file as upright RGB; `picture.info["notes"]` lists the conversions.

    Args:
        path: any format that Pillow reads. The first frame of an animation is used; alpha is flattened onto white;
            deep, palette and CMYK pictures become 8-bit RGB; EXIF rotation is applied.
        max_pixels: larger pictures are refused when their header is read, before decoding.

    Raises:
        ValueError: a missing, empty, damaged or too large file, or no picture; the message is one line that names it.
    """
    return upright_rgb(decode(Path(path), max_pixels))


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A mask of mode "L" that is 255 inside the box (x0, y0, x1, y1), x1 and y1 excluded, clipped to the picture.

    Raises ValueError: a box without area, or outside the picture.
    """
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise ValueError(
            f"box: {x0},{y0},{x1},{y1} has no area; x0,y0 is its top left corner and x1,y1 its bottom right"
        )
    if x1 <= 0 or y1 <= 0 or x0 >= size[0] or y0 >= size[1]:
        raise ValueError(f"box: {x0},{y0},{x1},{y1} lies outside the {size[0]}x{size[1]} picture")
    mask = Image.new("L", size)
    mask.paste(255, (max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1])))
    return mask


def require_inside(size: tuple[int, int], points: Sequence[tuple[int, int]]) -> None:
    """Refuse a click outside a picture of `size` (width, height). Raises ValueError that names both."""
    for x, y in points:
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            raise ValueError(f"click: {x},{y} lies outside the {size[0]}x{size[1]} picture; count from 0,0 at top left")


def require_mask_size(mask: Image.Image, picture: Image.Image) -> None:
    """Refuse a mask of another size than the picture. Raises ValueError that names both sizes."""
    if mask.size != picture.size:
        raise ValueError(
            f"mask: {mask.width}x{mask.height}, but the upright picture is {picture.width}x{picture.height}; "
            "draw the mask at the picture's size"
        )


def require_mask(mask: Image.Image, picture: Image.Image) -> None:
    """Refuse a mask that is not of mode "L" or "1", or of another size than the picture. Raises ValueError."""
    if mask.mode not in ("L", "1"):
        raise ValueError(f"mask: mode {mask.mode}, but L is needed; mask_files.understand makes a mask of any picture")
    require_mask_size(mask, picture)


def smaller(picture: Image.Image, side: int) -> Image.Image:
    """The picture scaled down to at most `side` pixels on its longer side; a smaller one is returned as it is."""
    if max(picture.size) <= side:
        return picture
    copy = picture.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


def digest(picture: Image.Image) -> str:
    """SHA-256 of mode, size and pixels; equal pictures have equal digests, wherever they are stored."""
    head = f"{picture.mode} {picture.width}x{picture.height} ".encode()
    return hashlib.sha256(head + picture.tobytes()).hexdigest()


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Any PIL picture as upright 8-bit RGB with `info["notes"]`, a list of strings.

    Raises ValueError: values that an 8-bit picture cannot represent (floats above 255, negative integers).
    """
    if picture.mode == "RGB" and isinstance(picture.info.get("notes"), list):  # a PNG's own "notes" are a string
        return picture
    path = picture.info.get("path", getattr(picture, "filename", "") or "")
    profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA") else None
    turned, notes = upright(picture)
    orientation = turned.info.get("exif_orientation")
    if is_numeric(turned):
        notes.append(f"mode {turned.mode}: reduced to 8 bits")
    elif turned.mode == "CMYK":
        notes.append("CMYK: converted to RGB")
    turned = eight_bits(turned)
    if has_alpha(turned) and turned.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        turned = flatten(turned, "white")
        notes.append("transparency was flattened onto white")
    result = turned.convert("RGB")
    result = result.copy() if result is picture else result
    kept = {"icc_profile": profile, "exif_orientation": orientation}
    result.info = {"notes": notes, "path": str(path)} | {name: value for name, value in kept.items() if value}
    return result


def upright(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """The first frame of a picture, turned as its EXIF data says (`info["exif_orientation"]`), and notes about both."""
    notes = [*picture.info.get("file_notes", ())]
    if is_animated(picture):
        notes.append("animated: the first frame was taken")
    turned, orientation = picture, stored_orientation(picture)
    try:
        turned = ImageOps.exif_transpose(picture)
    except Exception:  # the parser of a broken EXIF block may raise anything; the pixels are still good
        notes.append("EXIF data is damaged: the stored orientation was kept")
        orientation = None
    if orientation in TURNS:
        notes.append("turned upright as its EXIF data says")
        turned.info["exif_orientation"] = orientation
    else:  # such as the 1 of most TIFFs
        turned.info.pop("exif_orientation", None)
    return turned, notes


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size as float32 [B, 3, H, W] in [0, 1]; masks of mode "L" as [B, 1, H, W].

    Raises ValueError: pictures of different sizes.
    """
    import torch

    if len({picture.size for picture in pictures}) != 1:
        raise ValueError(f"pictures: one size is needed, got {sorted({picture.size for picture in pictures})}")
    arrays = [np.asarray(picture if picture.mode in ("RGB", "L") else upright_rgb(picture)) for picture in pictures]
    stacked = torch.from_numpy(np.stack([a[..., None] if a.ndim == 2 else a for a in arrays]))
    return stacked.permute(0, 3, 1, 2).contiguous().float() / 255


def to_pictures(images_BCHW: Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [0, 1] as RGB pictures, [B, 1, H, W] as mode "L"; values outside [0, 1] are clipped."""
    import torch

    bytes_BHWC = (images_BCHW.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    arrays = bytes_BHWC.cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(a[..., 0] if a.shape[-1] == 1 else a)) for a in arrays]


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file, with its colour profile if it came with one."""
    buffer = io.BytesIO()
    # Level 4 takes half the time of Pillow's default 6 and a few per cent more bytes.
    picture.save(buffer, "PNG", icc_profile=picture.info.get("icc_profile"), compress_level=4)
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "png") -> str:
    """A picture file of this kind (png, jpeg) inside a URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def sixteen_bit(values_HW: np.ndarray) -> Image.Image:
    """A map in [0, 1] as a 16-bit grey picture."""
    return Image.fromarray((values_HW.clip(0, 1) * 65535).round().astype(np.uint16))


def decode(path: Path, max_pixels: int) -> Image.Image:
    """A picture file as Pillow decodes it; `info` gets its `path` and `file_bits`, the bits a channel that
    the file stores.

    Raises ValueError: as `open_picture`.
    """
    _register_heif()
    if not is_file(path):
        raise ValueError(f"{path}: {'a folder, where one picture is needed' if is_folder(path) else 'no such file'}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes)")
    try:
        picture = Image.open(path)
        if picture.format == "TIFF":  # Pillow maps some files into memory, and then forgets their orientation
            picture = Image.open(io.BytesIO(path.read_bytes()))
    except UnidentifiedImageError:
        heif = path.suffix.lower() in (".heic", ".heif", ".avif") and not _register_heif()
        way_out = "; install pillow-heif to read it: pip install 'regionedit[heif]'" if heif else ""
        with path.open("rb") as file:
            known = BEGINNINGS.get(file.read(4))
        what = f"a {known} that cannot be read: damaged or of a rare kind; save it as a PNG" if known else NO_PICTURE
        raise ValueError(f"{path}: {what}{way_out}") from None
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error)).group()
        raise ValueError(f"{path}: {pixels} pixels, more than max_pixels={max_pixels}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # parsers of damaged headers raise anything: ValueError, struct.error, ...
        raise ValueError(f"{path}: damaged picture ({one_line(error, 200)})") from None
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        raise ValueError(
            f"{path}: {picture.width}x{picture.height} = {pixels} pixels, more than max_pixels={max_pixels}"
        )
    if kind := misread(picture):
        raise ValueError(f"{path}: {kind}, which Pillow reads wrongly; save it as a PNG")
    corrected = {"path": str(path), "file_bits": stored_bits(picture, path)} | unread(picture, path)
    try:
        picture.load()
        require_whole(picture, path)
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, ...
        raise ValueError(f"{path}: truncated or damaged picture ({one_line(error, 200)})") from None
    if picture.format == "PNG":  # its texts stand in `info` under any names, such as "transparency"
        kept = {name: v for name, v in picture.info.items() if not isinstance(v, str) or name in EXIF_AS_TEXT}
        picture.info = kept
    picture.info |= corrected
    return picture


@functools.cache
def _register_heif() -> bool:
    """Let Pillow read HEIC with the optional package pillow-heif; whether it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_animated(picture: Image.Image) -> bool:
    """Whether a file has several pictures. A phone's MPO is one photograph, and a PSD one picture with layers."""
    if getattr(picture, "format", None) not in ("MPO", "PSD"):
        with suppress(Exception):  # the parser of a damaged second picture may raise anything
            return getattr(picture, "is_animated", False)
    return False


def is_numeric(picture: Image.Image) -> bool:
    """Whether a picture is grey with more than 8 bits, or of floats."""
    return picture.mode.startswith("I") or picture.mode == "F"


def has_alpha(picture: Image.Image) -> bool:
    """Whether a picture has an alpha channel or a transparent colour; it may be opaque all the same."""
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def flatten(picture: Image.Image, color: str) -> Image.Image:
    """A picture with transparency on one colour, RGB."""
    with_alpha = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, color), with_alpha).convert("RGB")


def eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, or of floats, as mode "L"; others as they are. Raises ValueError: as `upright_rgb`."""
    if not is_numeric(picture):
        return picture
    values = np.asarray(picture).astype(np.float64 if picture.mode == "F" else np.int64)
    low, high, white = float(values.min()), float(values.max()), white_of(values)
    if not (low >= 0 and high <= white):
        raise ValueError(
            f"{picture.info.get('path') or 'picture'}: values {low:g} to {high:g}, but 0 to {white:g} can be shown; "
            "rescale them"
        )
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))
