"""What a picture's file says beside its pixels: EXIF, XMP, resolution and colour profile, read from any format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

# Tags of the first directory that describe how the old file stored its pixels, or hold copies of them; the new file has
# its own. Orientation is among them, because pictures are stored upright.
STRUCTURE = frozenset(
    (*range(254, 269), 273, 274, *range(277, 282), 284, *range(288, 294), 301, 317, *range(320, 326), 330,
     *range(332, 335), *range(336, 343), 347, *range(512, 522), *range(529, 533), 700, 34377, 34675, 37724)
)  # fmt: skip
DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
WIDTH, HEIGHT = 40962, 40963
RESOLUTION, RESOLUTION_DOWN, XMP_TAG = 282, 283, 700
LARGEST_DPI = {"PNG": 109_000_000, "JPEG": 65_535, "TIFF": 2**32 - 1}  # that a file's numbers can hold
ORIENTATION_IN_XMP = re.compile(rb"""\s[\w-]+:Orientation\s*=\s*(?:"\d"|'\d')|<([\w-]+:Orientation)>\s*\d\s*</\1>""")
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"  # begins a segment of a JPEG that has one
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


@dataclass(frozen=True)
class Metadata:
    """Metadata of an upright picture.

    Args:
        exif: a whole EXIF block with its header, without orientation and without the thumbnail, which would still show
            the picture before the edit; empty if there is none.
        xmp: a whole XMP packet; empty if there is none.
        dpi: pixels per inch, horizontal and vertical, or None.
        icc_profile: the colour profile of the stored pixels; empty if there is none.
        png_colour: chunks of a PNG that do for it what a profile does: sRGB, gAMA, cHRM, cICP; (name, content) of each.
    """

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    icc_profile: bytes = b""
    png_colour: tuple[tuple[bytes, bytes], ...] = ()

    def without_description(self) -> Metadata:
        """Only what colours need to be shown as they were."""
        return Metadata(icc_profile=self.icc_profile, png_colour=self.png_colour)

    def options(self, kind: str) -> dict[str, Any]:
        """The arguments of Pillow's `save` for a format: PNG, JPEG, WEBP or TIFF."""
        dpi = self.dpi if max(self.dpi or (0,)) <= LARGEST_DPI.get(kind, math.inf) else None
        given = {"exif": self.exif, "icc_profile": self.icc_profile, "dpi": dpi}
        if kind == "TIFF":  # its tags are those of EXIF
            given["exif"] = Image.Exif()
            given["exif"].load(self.exif)
            for tag in DIRECTORIES:
                given["exif"].get_ifd(tag).update(_exact(given["exif"].get_ifd(tag), tag))
            given["exif"].update(_exact(given["exif"]))
            if self.xmp:
                given["exif"][XMP_TAG] = self.xmp
        elif kind in ("JPEG", "WEBP"):
            given["xmp"] = self.xmp
        return {name: value for name, value in given.items() if value}

    def chunks(self, chunks: PngInfo | None = None) -> PngInfo:
        """Chunks of a PNG: the given ones, those of its colours, and the XMP packet."""
        chunks = chunks or PngInfo()
        for name, content in self.png_colour:
            chunks.add(name, content)
        if self.xmp:
            chunks.add_itxt("XML:com.adobe.xmp", self.xmp.decode("utf-8", "replace"))
        return chunks


def read_metadata(picture: Image.Image, turned: Image.Image, notes: list[str]) -> Metadata:
    """The metadata of a decoded picture for the same one turned upright; `notes` gets what had to be left out."""
    info = turned.info
    try:
        exif = _clean_exif(picture.getexif(), turned.size, info.get("exif_orientation") in SIDEWAYS)
    except Exception:  # the parser of a broken EXIF block may raise anything
        exif = b""
        notes.append("EXIF data is damaged: it was left out")
    xmp = info.get("xmp", b"")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else b""
    if b"xmpGImg:image" in xmp:
        xmp = b""
        notes.append("XMP data was left out: it holds a small copy of the picture")
    xmp = xmp.rstrip(b"\0")
    if b"\0" in xmp or "\ufffd" in xmp.decode("utf-8", "replace"):
        xmp = b""
        notes.append("XMP data was left out: it is not UTF-8")
    if info.get("exif_orientation"):  # Pillow knows only the usual way of writing it
        xmp = ORIENTATION_IN_XMP.sub(b"", xmp)
    if b"hdrgm:" in xmp or any(data.startswith(ISO_GAIN_MAP) for _, data in getattr(picture, "applist", ())):
        notes.append("the gain map for HDR screens was left out")
    if b":MotionPhoto" in xmp or b":MicroVideo" in xmp:
        notes.append("the video of the moving photograph was left out")
    if b":HasExtendedXMP" in xmp:
        notes.append("XMP data beyond the first 64 KB was left out")
    if info.get("icc_profile", b"") is None:
        notes.append("the colour profile is damaged: it was left out")
    profile = info.get("icc_profile") or b""
    dpi = None if _is_invented(picture) else _dpi(info.get("dpi"))
    dpi = dpi[::-1] if dpi and info.get("exif_orientation") in SIDEWAYS else dpi
    profile = profile if isinstance(profile, bytes) else b""
    return Metadata(exif, xmp, dpi, profile, _png_colour(info) if picture.format == "PNG" else ())


def _is_invented(picture: Image.Image) -> bool:
    """Whether the resolution is Pillow's own: 1 for a TIFF without one, 72 for a JPEG that has only other EXIF data."""
    if picture.format in ("JPEG", "MPO") and picture.info.get("jfif_unit") not in (1, 2):
        with suppress(Exception):  # the parser of a broken EXIF block may raise anything
            return RESOLUTION not in picture.getexif()
        return True
    return RESOLUTION not in getattr(picture, "tag_v2", (RESOLUTION,))


def _png_colour(info: dict[Any, Any]) -> tuple[tuple[bytes, bytes], ...]:
    chunks = []
    if isinstance(gamma := info.get("gamma"), float):
        chunks.append((b"gAMA", round(gamma * 100_000).to_bytes(4, "big")))
    if isinstance(chromaticity := info.get("chromaticity"), tuple):
        chunks.append((b"cHRM", b"".join(round(value * 100_000).to_bytes(4, "big") for value in chromaticity)))
    if isinstance(intent := info.get("srgb"), int):
        chunks.append((b"sRGB", bytes([intent])))
    if isinstance(code := info.get("cicp"), bytes):
        chunks.append((b"cICP", code))
    return tuple(chunks)


class _Text(str):
    """A text of EXIF data with the bytes of its file. Pillow reads them as Latin-1, but writes ? beyond ASCII."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode("latin-1", "replace")


def _exact(directory: Mapping[int, Any], name: int = 0) -> dict[int, Any]:
    """A directory of EXIF data such that Pillow writes its texts as they are, such as names in UTF-8, and bytes in the
    type UNDEFINED, which comments and makers' notes have. `name`: one of `DIRECTORIES`, or 0 for the first."""
    exact = {tag: _Text(value) if isinstance(value, str) else value for tag, value in directory.items()}
    if name == ExifTags.IFD.Exif:  # Pillow would take bytes for numbers, which they are in the others
        exact = {tag: [bytearray(value)] if isinstance(value, bytes) else value for tag, value in exact.items()}
    return exact


def _clean_exif(exif: Image.Exif, size: tuple[int, int], sideways: bool) -> bytes:
    """The block without the tags of the old file; `sideways`: the picture was turned, and width is height now."""
    clean = Image.Exif()
    clean.endian = exif.endian  # comments in UTF-16 and makers' notes are in it too
    for tag, value in _exact(exif).items():
        if tag not in STRUCTURE and tag not in DIRECTORIES:
            clean[tag] = value
    if sideways and RESOLUTION in clean and RESOLUTION_DOWN in clean:
        clean[RESOLUTION], clean[RESOLUTION_DOWN] = clean[RESOLUTION_DOWN], clean[RESOLUTION]
    for tag in DIRECTORIES:
        if directory := _exact(exif.get_ifd(tag), tag):
            if tag == ExifTags.IFD.Exif:
                sides = zip((WIDTH, HEIGHT), size, strict=True)
                directory |= {name: value for name, value in sides if name in directory}
                if ExifTags.IFD.Interop in directory:
                    directory[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
            clean[tag] = directory
    return clean.tobytes() if len(clean) else b""


def _dpi(given: Any) -> tuple[float, float] | None:
    try:
        x, y = map(float, given if isinstance(given, Iterable) else (given, given))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < math.inf and 0 < y < math.inf else None
