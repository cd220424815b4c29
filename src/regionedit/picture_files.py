"""Picture files beyond Pillow: depth as stored, 16-bit PNG in and out, and the options of each format.

Shape letters: H W pixels, C channels: grey, grey and alpha, RGB, RGBA.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from regionedit.picture_metadata import Metadata

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of a PNG, by channels
SUFFIX_OF = {"JPEG": "jpg", "WEBP": "webp", "TIFF": "tif"}
"""The formats, besides PNG, in which a result can be written."""

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""EXIF orientation -> how stored pixels are turned upright."""

HEADER = 65_536  # bytes of a file that contain the headers of AVIF and JPEG 2000
ORIENTATION, CHANNELS, TILE_WIDTH, EXTRA_SAMPLES = 274, 277, 322, 338  # tags of a TIFF; the first also one of EXIF
PREMULTIPLIED = 1  # an extra sample
LONGEST_SEGMENT = 65_504  # bytes of EXIF or XMP that a JPEG can hold


def stored_bits(picture: Image.Image, path: Path) -> int:
    """Bits a channel of a picture that was opened and not loaded yet; Pillow reduces deeper colour to 8."""
    codecs = str([(tile.codec_name, tile.args) for tile in getattr(picture, "tile", ())])
    if re.search("(?<!BGR);16|SGI16|BC6H", codecs):  # BGR;16 has 5, 6 and 5 bits
        return 16
    if picture.format == "PPM" and picture.tile and isinstance(picture.tile[0].args, tuple):
        return int(picture.tile[0].args[-1]).bit_length()
    if picture.format in ("AVIF", "JPEG2000"):
        with path.open("rb") as file:
            return max(8, _header_bits(file.read(HEADER), picture.format))
    given = picture.info.get("bit_depth")  # by pillow-heif, or a PNG's text of this name
    return max(8, given) if isinstance(given, int) else 8


def stored_orientation(picture: Image.Image) -> int | None:
    """The orientation in a picture's EXIF data, also of a TIFF, which Pillow turns itself; None: there is none."""
    with suppress(Exception):  # the parser of a broken EXIF block may raise anything
        return picture.info.get("exif_orientation") or picture.getexif().get(ORIENTATION)
    return None


def unread(picture: Image.Image, path: Path) -> dict[str, Any]:
    """Entries for `info` that Pillow gets wrong, lacks or drops, of a picture that was opened and not loaded yet."""
    found: dict[str, Any] = {}
    if picture.format == "TIFF":
        found["file_notes"] = _left_out(picture)
        if orientation := stored_orientation(picture):
            found["exif_orientation"] = orientation
    if picture.format != "PNG":
        return found
    factor = {"L;2": 85, "L;4": 17}.get(str(picture.tile[0].args)) if picture.tile else None
    transparent = picture.info.get("transparency")
    if factor and isinstance(transparent, int):  # the pixels are scaled to 8 bits, the transparent colour is not
        found["transparency"] = transparent * factor
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            if head == b"\0\0\0\4cICP":
                found["cicp"] = file.read(4)
                break
            file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    return found


def _left_out(picture: Image.Image) -> list[str]:
    """Notes about channels of a TIFF that Pillow drops or changes."""
    notes, stored = [], picture.tag_v2.get(CHANNELS, 1)
    if (more := stored - len(picture.getbands())) > 0:
        notes.append(f"{more} of the file's {stored} channels hold neither colour nor transparency: left out")
    if picture.tag_v2.get(EXTRA_SAMPLES, ())[:1] == (PREMULTIPLIED,):
        notes.append("colours premultiplied with alpha were divided by it; translucent ones may differ by rounding")
    return notes


def _header_bits(head: bytes, kind: str) -> int:
    """Bits a channel from the header of an AVIF (`av1C`) or a JPEG 2000 (SIZ); 0: not found."""
    marker, place = (b"av1C", 6) if kind == "AVIF" else (b"\xff\x4f\xff\x51", 42)
    start = head.find(marker)
    if start < 0 or start + place >= len(head):
        return 0
    value = head[start + place]
    return (12 if value & 0x20 else 10 if value & 0x40 else 8) if kind == "AVIF" else (value & 0x7F) + 1


def white_of(values: np.ndarray) -> float:
    """The value that is shown as white: of integers the largest that fits into the bits in use, an even number from 8.

    So 12-bit data in a 16-bit file has 4095. Of floats it is 1 or, if a value exceeds that, 255.
    """
    high = float(values.max(initial=0))
    if values.dtype.kind == "f":
        return 1.0 if high <= 1 else 255.0
    bits = max(8, int(high).bit_length()) if high else 16  # a black picture does not show its depth
    return float(min(2 ** (bits + bits % 2), 2**31) - 1)


def deep_pixels(path: Path) -> np.ndarray | None:
    """The upright pixels of a file with 16-bit colour, as stored, uint16 [H, W, C]; None where only Pillow can read it.

    A PNG of any kind can be read, and a TIFF that is not compressed.

    Raises ValueError: damaged; the message is one line that names the file.
    """
    with Image.open(path) as picture:
        pixels_HWC = _deep_png_pixels(path) if picture.format == "PNG" else _deep_tiff_pixels(picture, path)
        try:
            orientation = picture.getexif().get(ORIENTATION, 1)
        except Exception:  # the parser of a broken EXIF block may raise anything
            orientation = 1
    return None if pixels_HWC is None else np.ascontiguousarray(TURNS.get(orientation, lambda a: a)(pixels_HWC))


def _deep_tiff_pixels(picture: Image.Image, path: Path) -> np.ndarray | None:
    """The stored pixels of a TIFF that was opened and not loaded yet, if its pixels are uncompressed RGB or RGBA."""
    kinds = {(tile.codec_name, tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in picture.tile}
    if picture.format != "TIFF" or len(kinds) != 1:
        return None
    ((codec, mode),) = kinds
    if codec != "raw" or mode not in ("RGB;16L", "RGB;16B", "RGBA;16L", "RGBA;16B"):
        return None
    height, width = picture.tag_v2[257], picture.tag_v2[256]  # `size` is already that of the upright picture
    stored_width = picture.tag_v2.get(TILE_WIDTH, width)  # tiles at the right border are stored whole
    pixels_HWC = np.zeros((height, width, len(mode) - 4), np.uint16)
    data = path.read_bytes()
    for _, (x0, y0, x1, y1), offset, _ in picture.tile:
        shape = (y1 - y0, stored_width, pixels_HWC.shape[2])
        values = np.frombuffer(data, "<u2" if mode.endswith("L") else ">u2", math.prod(shape), offset)
        pixels_HWC[y0:y1, x0:x1] = values.reshape(shape)[:, : x1 - x0]
    return pixels_HWC


def _deep_png_pixels(path: Path) -> np.ndarray:
    """The 16 bits of each channel, which Pillow gives as high and as low bytes; those of grey with alpha at once."""
    layers: list[np.ndarray] = []
    try:
        for half in (";16B", ";16L"):
            with Image.open(path) as picture:
                grey = picture.tile[0].args == "LA;16B"
                kind = "RGBA" if grey else picture.mode + half
                picture.tile = [tile._replace(args=kind) for tile in picture.tile]
                layers.append(np.asarray(picture))
            if grey:
                return layers[0].view(">u2").astype(np.uint16)
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, ...
        raise ValueError(f"{path}: truncated or damaged picture ({' '.join(str(error).split())[:200]})") from None
    return layers[0].astype(np.uint16) << 8 | layers[1]


def encode(
    pixels_HWC: np.ndarray,
    metadata: Metadata,
    kind: str = "PNG",
    chunks: PngInfo | None = None,
    jpeg: Mapping[str, Any] | None = None,
) -> bytes:
    """A picture file: PNG, WEBP and TIFF hold every bit; JPEG is lossy.

    TIFF is not compressed, because Pillow writes no EXIF into a compressed one.

    Args:
        pixels_HWC: uint8, or uint16 for PNG and for grey in TIFF.
        kind: PNG or a key of `SUFFIX_OF`.
        chunks: further text chunks of a PNG.
        jpeg: quantization tables and subsampling, as `jpeg_options` returns them.
    """
    options = metadata.options(kind)
    if kind == "PNG":
        options["pnginfo"] = metadata.chunks(chunks)
        if pixels_HWC.dtype == np.uint16:
            return _deep_png(pixels_HWC, options)
        options["compress_level"] = 4  # half the time of Pillow's default 6 and a few per cent more bytes
    elif kind == "JPEG":
        options = {name: v for name, v in options.items() if name == "icc_profile" or len(v) < LONGEST_SEGMENT}
        options |= jpeg or {"quality": 95, "subsampling": 0}
    elif kind == "WEBP":
        options |= {"lossless": True, "exact": True}
        pixels_HWC = pixels_HWC if pixels_HWC.shape[2] > 2 else pixels_HWC[..., [0, 0, 0, 1][: pixels_HWC.shape[2] + 2]]
    channels = pixels_HWC.shape[2]
    pixels = np.ascontiguousarray(pixels_HWC[..., 0] if channels == 1 else pixels_HWC)
    picture = Image.fromarray(pixels)
    if channels == 2:
        picture = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(2)])
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_options(picture: Image.Image) -> dict[str, Any] | None:
    """What `encode` needs to compress like this JPEG, so that unchanged blocks lose as little as possible."""
    from PIL import JpegImagePlugin

    tables = getattr(picture, "quantization", None)
    if not tables or sorted(tables) != list(range(len(tables))):  # Pillow writes only tables numbered from 0
        return None
    sampling = JpegImagePlugin.get_sampling(picture)
    return {"qtables": dict(tables), "subsampling": sampling if sampling >= 0 else 0}


def _deep_png(pixels_HWC: np.ndarray, options: dict[str, Any]) -> bytes:
    """A PNG with 16 bits a channel; Pillow writes only grey ones, but all the other chunks."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG", **options)
    height, width, channels = pixels_HWC.shape
    rows = pixels_HWC.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # filter 2: minus the row above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    made = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0),
        b"IDAT": zlib.compress(filtered.tobytes(), 4),
    }
    return SIGNATURE + b"".join(_chunk(name, made.get(name, data)) for name, data, _ in chunks(buffer.getvalue()))


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, data and checksum of each chunk of a PNG, up to its end or to where the file breaks off."""
    place, name = len(SIGNATURE), b""
    while len(head := png[place : place + 8]) == 8 and name != b"IEND":
        end, name = place + 8 + int.from_bytes(head[:4], "big"), head[4:]
        yield name, png[place + 8 : end], png[end : end + 4]
        place = end + 4


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
