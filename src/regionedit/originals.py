"""The source of an edit as its file stores it: mode, depth, alpha and metadata, behind the RGB view that models see.

Every picture that is edited enters through `open_source` or `with_original`. Both return the view: an upright 8-bit RGB
picture whose `info` holds the `Original`. An edit composites into the original, at its own depth, and the result is
again such a pair.

Shape letters: H W pixels, C channels: grey, grey and alpha, RGB, RGBA.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageCms

from regionedit.images import (
    MAX_PIXELS,
    decode,
    digest,
    eight_bits,
    flatten,
    has_alpha,
    is_numeric,
    upright,
)
from regionedit.mask_files import widened
from regionedit.picture_files import MODES, SUFFIX_OF, deep_pixels, encode, jpeg_options, white_of
from regionedit.picture_metadata import Metadata, read_metadata

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

KEY = "original"


@dataclass(frozen=True)
class Original:
    """An upright picture as its file stores it.

    Args:
        pixels_HWC: uint8 or uint16, alpha last, not premultiplied; None for 8-bit RGB, where the view has the pixels.
        white: the colour value that the view shows as white.
        format: of the file, as Pillow names it; empty if there was no file.
        metadata: written into the result's file.
        jpeg: how the file was compressed, for another JPEG like it.
        refusal: why the depth of the file cannot be kept, or empty; the pixels then have 8 bits.
    """

    pixels_HWC: np.ndarray | None = None
    white: float = 255.0
    format: str = ""
    metadata: Metadata = field(default_factory=Metadata)
    jpeg: Mapping[str, Any] | None = None
    refusal: str = ""

    @property
    def description(self) -> str:
        """Mode and depth in words, such as "RGBA, 16 bits"."""
        if self.pixels_HWC is None:
            return "RGB, 8 bits"
        return f"{MODES[self.pixels_HWC.shape[2]]}, {8 * self.pixels_HWC.itemsize} bits"

    @property
    def alpha_HW(self) -> np.ndarray | None:
        """Opacity as stored, or None for pictures without."""
        if self.pixels_HWC is None or self.pixels_HWC.shape[2] % 2:
            return None
        return self.pixels_HWC[..., -1]

    @property
    def is_grey(self) -> bool:
        return self.pixels_HWC is not None and self.pixels_HWC.shape[2] < 3


def open_source(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture for editing: the upright 8-bit RGB view, with its `Original`; `info["notes"]` says what was done.

    Raises ValueError: as `images.open_picture`.
    """
    path = Path(path)
    picture = decode(path, max_pixels)
    deep = picture.info["file_bits"] > 8 and not is_numeric(picture)
    return with_original(picture, deep_pixels(path) if deep else None)


def with_original(picture: Image.Image, deep_HWC: np.ndarray | None = None) -> Image.Image:
    """Any PIL picture as the upright 8-bit RGB view with its `Original`; a view is returned as it is.

    Args:
        deep_HWC: the upright stored pixels, where Pillow decoded fewer bits than the file has.

    Raises ValueError: values that cannot be shown, such as negative ones.
    """
    if picture.mode == "RGB" and isinstance(picture.info.get("notes"), list):  # a PNG's own "notes" are a string
        return picture
    turned, notes = upright(picture)
    orientation = turned.info.get("exif_orientation")
    metadata = read_metadata(picture, turned, notes)
    original = Original(
        format={"MPO": "JPEG"}.get(picture.format or "", picture.format or ""),
        metadata=metadata,
        jpeg=jpeg_options(picture),
    )
    if deep_HWC is not None:
        original = _deep(original, _with_transparent_colour(deep_HWC, picture.info.get("transparency")), notes)
    elif is_numeric(turned):
        original = _numeric(original, turned, notes)
    else:
        bits = picture.info.get("file_bits", 8)
        refusal = f"it has {bits} bits a channel, and 8 of them can be read" if bits > 8 else ""
        turned, profile = _in_rgb(turned, notes)
        original = replace(original, metadata=replace(metadata, icc_profile=profile), refusal=refusal)
        if turned.mode != "RGB":
            pixels = np.asarray(turned)
            original = replace(original, pixels_HWC=pixels[..., None] if pixels.ndim == 2 else pixels)
    alpha_HW = original.alpha_HW
    if alpha_HW is not None and not (alpha_HW == np.iinfo(alpha_HW.dtype).max).all():
        notes.append("transparency is kept; the models see the picture on white")
    if original.is_grey:
        notes.append("the picture is grey, and so is the edit; give it as RGB for a coloured one")
    view = turned.copy() if original.pixels_HWC is None else shown(original.pixels_HWC, original.white)
    path = picture.info.get("path", getattr(picture, "filename", "") or "")
    view.info = {"notes": notes, "path": str(path), KEY: original}
    if orientation:
        view.info["exif_orientation"] = orientation
    if original.metadata.icc_profile and not original.is_grey:
        view.info["icc_profile"] = original.metadata.icc_profile
    return view


def original_of(view: Image.Image) -> Original:
    """The original behind a view; for any other RGB picture, itself."""
    known = view.info.get(KEY)
    size = (view.height, view.width)
    if isinstance(known, Original) and (known.pixels_HWC is None or known.pixels_HWC.shape[:2] == size):
        return known
    return Original(metadata=Metadata(icc_profile=view.info.get("icc_profile") or b""))


def pixels_of(view: Image.Image) -> np.ndarray:
    """The pixels behind a view, as stored: [H, W, C], uint8 or uint16."""
    pixels_HWC = original_of(view).pixels_HWC
    return np.asarray(view) if pixels_HWC is None else pixels_HWC


def as_configured(view: Image.Image, depth: Literal["source", 8], strip_metadata: bool) -> Image.Image:
    """The view with the depth and the metadata that the settings `depth` and `strip_metadata` ask for.

    Raises ValueError: the depth of the file cannot be kept, and `depth` is not 8.
    """
    original, notes = original_of(view), list(view.info["notes"])
    if depth == 8:
        pixels_HWC = original.pixels_HWC
        if original.refusal or (pixels_HWC is not None and pixels_HWC.dtype != np.uint8):
            notes = [note for note in notes if note != KEPT] + ["reduced to 8 bits a channel"]
            if pixels_HWC is not None and pixels_HWC.dtype != np.uint8:
                pixels_HWC = _reduced(pixels_HWC, original.white)
            plain = pixels_HWC is None or pixels_HWC.shape[2] == 3
            original = replace(original, pixels_HWC=None if plain else pixels_HWC, white=255.0, refusal="")
    elif original.refusal:
        name = view.info["path"] or "picture"
        raise ValueError(f"{name}: {original.refusal}; with --depth 8 it is edited and written with 8 bits a channel")
    if strip_metadata:
        original = replace(original, metadata=original.metadata.without_description())
    if original is original_of(view):
        return view
    changed = view.copy()
    changed.info = view.info | {"notes": notes, KEY: original}
    return changed


def shown(pixels_HWC: np.ndarray, white: float) -> Image.Image:
    """The 8-bit RGB view of stored pixels: scaled so that `white` is 255, on white where they are transparent."""
    reduced_HWC = _reduced(pixels_HWC, white)
    bands = [Image.fromarray(np.ascontiguousarray(reduced_HWC[..., c])) for c in range(reduced_HWC.shape[2])]
    picture = Image.merge(MODES[len(bands)], bands)
    if has_alpha(picture) and picture.getchannel("A").getextrema()[0] < 255:
        return flatten(picture, "white")
    return picture.convert("RGB")


def encoded(view: Image.Image, kind: str = "PNG", chunks: PngInfo | None = None) -> bytes:
    """The original behind a view as a file, with its metadata; `kind` is PNG or a key of `picture_files.SUFFIX_OF`."""
    original = original_of(view)
    return encode(pixels_of(view), original.metadata, kind, chunks, original.jpeg)


def source_format(view: Image.Image) -> tuple[str, str]:
    """The format of the source's file if a result can be written in it, else an empty text; and a remark, or none."""
    kind = original_of(view).format
    if kind == "PNG":
        return "", ""
    if kind == "JPEG":
        return kind, "result.jpg is compressed anew and differs a little everywhere; result.png is exact"
    pixels_HWC = pixels_of(view)
    if kind not in SUFFIX_OF or (pixels_HWC.dtype != np.uint8 and pixels_HWC.shape[2] > 1):
        return "", f"format: no result is written as {kind or 'the file'}; result.png has it"
    return kind, ""


def source_digest(view: Image.Image) -> str:
    """SHA-256 of the source's pixels as stored; for 8-bit RGB that of the view."""
    pixels_HWC = original_of(view).pixels_HWC
    if pixels_HWC is None:
        return digest(view)
    head = f"{pixels_HWC.dtype} {pixels_HWC.shape} ".encode()
    return hashlib.sha256(head + pixels_HWC.tobytes()).hexdigest()


def file_notes(view: Image.Image, drawn: Image.Image | None, mask: Image.Image, written: str) -> list[str]:
    """Notes about a request's files: how its mask (`drawn`) and its picture were read, how much of the region (`mask`,
    mode "L") is not in `drawn` or wholly transparent, and the result's format (`written`: the setting `format`)."""
    alpha_HW, inside_HW = original_of(view).alpha_HW, np.asarray(mask) > 0
    share = float((alpha_HW[inside_HW] == 0).mean()) if alpha_HW is not None and inside_HW.any() else 0.0
    percent = f"{share:.0%}" if share >= 0.005 else "less than 1%"
    unseen = f"{percent} of the region is wholly transparent and stays so" if share else ""
    remark = source_format(view)[1] if written == "source" else ""
    of_mask = [] if drawn is None else drawn.info.get("notes", [])
    wider = "" if drawn is None else widened(drawn, mask)
    return [*of_mask, *(note for note in (wider, unseen, remark) if note), *view.info["notes"]]


KEPT = "16 bits a channel are kept; the models see 8"


def _deep(original: Original, pixels_HWC: np.ndarray, notes: list[str]) -> Original:
    """The original with these uint16 pixels, and notes about them."""
    colours = pixels_HWC[..., : 1 if pixels_HWC.shape[2] < 3 else 3]
    white = white_of(colours)
    notes.append(KEPT)
    if white < 65535:
        notes.append(f"its largest value is {colours.max()}: the models see {white:g} as white")
    return replace(original, pixels_HWC=pixels_HWC, white=white)


def _numeric(original: Original, picture: Image.Image, notes: list[str]) -> Original:
    """A grey picture of 16 or 32 bits, or of floats."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.max() > 65535 or values.min() < 0:
        reduced_HW = np.asarray(eight_bits(picture))
        what = "floats" if picture.mode == "F" else f"values up to {values.max()}"
        return replace(original, pixels_HWC=reduced_HW[..., None], refusal=f"it has {what}, which a PNG cannot hold")
    if picture.mode == "I":
        notes.append("its values fit into 16 bits and are written with 16")
    pixels_HWC = values.astype(np.uint16)[..., None]
    return _deep(original, _with_transparent_colour(pixels_HWC, picture.info.get("transparency")), notes)


def _with_transparent_colour(pixels_HWC: np.ndarray, transparent: Any) -> np.ndarray:
    """The pixels with an alpha channel that is 0 where they have the colour that a PNG's tRNS chunk names."""
    channels = pixels_HWC.shape[2]
    if channels not in (1, 3) or not isinstance(transparent, int | tuple):
        return pixels_HWC
    clear_HW = (pixels_HWC == np.asarray(transparent)).all(-1)
    return np.dstack([pixels_HWC, np.where(clear_HW, 0, 65535).astype(np.uint16)])


def _in_rgb(picture: Image.Image, notes: list[str]) -> tuple[Image.Image, bytes]:
    """An 8-bit picture as L, LA, RGB or RGBA, without loss where its mode allows it, and its colour profile."""
    profile, mode = picture.info.get("icc_profile") or b"", picture.mode
    if mode == "CMYK":
        if profile:
            try:
                srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
                converted = ImageCms.profileToProfile(picture, io.BytesIO(profile), srgb, outputMode="RGB")
                notes.append("CMYK: converted to sRGB by its colour profile")
                return converted, srgb.tobytes()
            except ImageCms.PyCMSError:
                notes.append("CMYK: its colour profile is damaged")
        notes.append("CMYK: converted to RGB")
        return picture.convert("RGB"), b""
    grey = mode in ("1", "L", "LA", "La")
    if has_alpha(picture):
        target = "LA" if grey else "RGBA"
    else:
        target = "L" if grey else "RGB"
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
        notes.append(f"{mode}: converted to RGB")
        profile = b""
    return (picture if mode == target and "transparency" not in picture.info else picture.convert(target)), profile


def _reduced(pixels_HWC: np.ndarray, white: float) -> np.ndarray:
    """The pixels with 8 bits a channel, where `white` becomes 255; alpha is scaled from its full range."""
    if pixels_HWC.dtype == np.uint8:
        return pixels_HWC
    values = np.arange(65536)
    colours = (values * (255 / white)).round().clip(0, 255).astype(np.uint8)[pixels_HWC]
    if pixels_HWC.shape[2] % 2 == 0:
        colours[..., -1] = (values / 257).round().astype(np.uint8)[pixels_HWC[..., -1]]
    return colours
