"""Picture files that Pillow reads without an error, and wrongly: kinds that it misunderstands, files that end early."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from regionedit.picture_files import COLOUR_TYPES, EXTRA_SAMPLES, PREMULTIPLIED, SIGNATURE, chunks

HEIGHT, BITS, PHOTOMETRIC, PLANES, PALETTE, SAMPLE_FORMAT = 257, 258, 262, 284, 320, 339  # tags of a TIFF
SIGNED = 2  # a sample format
KIND, PREVIEW = 254, 1  # a tag of a TIFF and its bit for a small copy of another picture

CHANNELS_OF = {kind: channels for channels, kind in COLOUR_TYPES.items()} | {3: 1}
"""Colour type of a PNG -> its channels; 3 is a palette."""
PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""The first row and column of each pass of an interlaced PNG, each with the distance to the next one."""

SEGMENT = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
"""A marker of a JPEG that begins a segment or ends the file."""
END, ARITHMETIC = b"\xd9", {b"\xc9", b"\xca"}
"""The end of the file; pixels in arithmetic coding, whose last bytes can be left out."""
ADDED = b"\x5a" * 64


def misread(picture: Image.Image) -> str:
    """What a picture that was opened and not loaded yet has that Pillow reads wrongly without an error, or empty."""
    if picture.format == "FITS" and picture.mode != "L":
        return "FITS values of more than 8 bits"
    if picture.format == "PSD" and picture.mode == "1":
        return "a PSD in black and white"
    if picture.format == "PSD" and picture.mode == "RGBA" and not _has_transparent_layers(picture):
        return "a PSD with a saved selection"
    if picture.format in ("BMP", "GIF", "TGA") and picture.tile:
        codec, extents, _, args = picture.tile[0]
        if codec == "bmp_rle" and args[1]:
            return "a BMP with compressed pixels of 4 bits"
        if "BGRA;15Z" in args:
            return "a TGA of 16 bits a pixel"
        if codec == "gif" and extents != (0, 0, *picture.size) and "transparency" not in picture.info:
            return "a GIF whose first frame does not cover it"
    if picture.format != "TIFF":
        return ""
    kind = _misread_tiff(picture)
    return f"a TIFF with {kind}" if kind else ""


def _has_transparent_layers(psd: Image.Image) -> bool:
    """Whether the fourth channel of a PSD is transparency and no saved selection: the number of layers is negative."""
    if psd._layers_position is None:
        return False
    psd.fp.seek(psd._layers_position)
    return psd.fp.read(1) >= b"\x80"


def _misread_tiff(picture: Image.Image) -> str:
    tags = picture.tag_v2
    bits, white_is_0 = max(tags.get(BITS, (1,))), tags.get(PHOTOMETRIC) == 0
    if isinstance(kind := tags.get(KIND), int) and kind & PREVIEW:
        return "a preview before the picture itself, as a camera's raw file"
    raw = any(tile.codec_name == "raw" for tile in picture.tile)
    if raw and tags.get(PLANES) == 2 and (bits != 8 or white_is_0 or tags.get(EXTRA_SAMPLES) == (PREMULTIPLIED,)):
        return "channels in separate planes"
    if raw and (max(t.extents[3] for t in picture.tile) < tags[HEIGHT] or min(t.offset for t in picture.tile) == 0):
        return "rows that are not in the file"
    if picture.mode in ("P", "PA") and 0 < max(tags[PALETTE]) < 256:
        return "a palette of 8 bits, where 16 are meant"
    if white_is_0 and bits > 8:
        return f"{bits} bits a channel where 0 is white"
    return "8 bits with a sign" if bits == 8 and SIGNED in tags.get(SAMPLE_FORMAT, ()) else ""


def require_whole(picture: Image.Image, path: Path) -> None:
    """Refuse a PNG or JPEG with fewer pixels than its header says, which Pillow fills up with black or grey.

    Args:
        picture: it was loaded from this path.

    Raises ValueError: the message does not name the file.
    """
    if picture.format == "PNG":
        _require_whole_png(path.read_bytes())
    elif picture.format in ("JPEG", "MPO"):
        _require_whole_jpeg(picture, path.read_bytes())


def _require_whole_png(data: bytes) -> None:
    """Raises ValueError: rows are missing, or the checksums of the file and of the pixels are both wrong."""
    packed, intact = [], True
    for name, content, checksum in chunks(data):
        if name == b"IDAT":
            packed.append(content)
            intact &= zlib.crc32(content, zlib.crc32(name)) == int.from_bytes(checksum, "big")
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(SIGNATURE) + 8)
    rows = []  # bytes of each, with its filter
    for top, down, left, right in PASSES if interlaced else ((0, 1, 0, 1),):
        across = len(range(left, width, right))
        rows += [1 + (across * bits * CHANNELS_OF[kind] + 7) // 8] * len(range(top, height, down)) if across else []
    joined = b"".join(packed)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)  # without its checksum, which some programs get wrong
    pixels = unpacker.decompress(joined[2:], sum(rows) + 1)[: sum(rows)]
    if len(pixels) < sum(rows):
        missing = len(rows) - int(np.searchsorted(np.cumsum(rows), len(pixels), "right"))
        raise ValueError(f"the file ends early: {missing} of {len(rows)} stored rows are missing")
    if not intact and zlib.adler32(pixels) != int.from_bytes(unpacker.unused_data[:4], "big"):
        raise ValueError("the checksums of its pixels are wrong")


def _require_whole_jpeg(picture: Image.Image, data: bytes) -> None:
    """Decode again with more bytes at the end: they are skipped in a whole file, and become pixels in another one.

    Raises ValueError.
    """
    place, markers = 2, []
    while found := SEGMENT.search(data, place):
        markers.append(found[1])
        if found[1] == END:
            break
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    end = found.start() if found else len(data)
    again = JpegImageFile(io.BytesIO(data[:end] + ADDED + b"\xff" + END))
    if ARITHMETIC.isdisjoint(markers) and not np.array_equal(np.asarray(again), np.asarray(picture)):
        raise ValueError("the file ends early: pixels at its end are missing")
