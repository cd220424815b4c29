"""Files that no picture or mask reader should trust: broken, truncated, disguised, enormous."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from regionedit.picture_files import SIGNATURE

SIZE = (40, 30)
GOOD = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8))


def stored(kind: str, picture: Image.Image = GOOD, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *more: bytes, bits: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG whose header claims this size, whatever its pixels are."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return SIGNATURE + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def resized(data: bytes, place: int, form: str, *values: int) -> bytes:
    """The file with other numbers at one place, such as its size."""
    return data[:place] + struct.pack(form, *values) + data[place + struct.calcsize(form) :]


def jpeg_of(width: int, height: int) -> bytes:
    data = stored("JPEG")
    return resized(data, data.index(b"\xff\xc0") + 5, ">HH", height, width)


def tiff_of(width: int, height: int) -> bytes:
    """A TIFF of one tag block that claims this size."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, height)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + struct.pack("<I", 0)


def unreadable() -> dict[str, bytes]:
    """Name -> content of files that are no picture, or not all of one."""
    files = {
        "empty": b"",
        "one byte": b"\x89",
        "zeros": bytes(500),
        "text": b"a picture of a cat\n" * 20,
        "markup": b"<script>alert(1)</script>",
        "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "JSON": b'{"error": "not found"}',
        "an archive": b"PK\x03\x04" + bytes(60),
        "a program": b"\x7fELF\x02\x01\x01" + bytes(60),
        "a PDF": b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n%%EOF",
        "a shell script": b"#!/bin/sh\nrm -rf /\n",
        "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "a PNG's signature": SIGNATURE,
        "a PNG without size": png(0, 0),
        "a PNG without rows": png(40, 30),
        "a PNG of unknown colours": png(40, 30, colour=5, rows=bytes(4000)),
        "a PNG of 7 bits": png(40, 30, bits=7, rows=bytes(4000)),
        "a PNG with a wrong checksum": png(40, 30, rows=bytes(4000)).replace(b"IDAT", b"IDBT"),
        "a JPEG's first bytes": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
        "a GIF without a frame": b"GIF89a\x28\0\x1e\0\x80\0\0\0\0\0\xff\xff\xff;",
        "a BMP of negative width": resized(stored("BMP"), 18, "<i", -40),
        "a TIFF that points outside itself": resized(stored("TIFF"), 4, "<I", 2**31),
        "a TIFF with no tag": b"II*\0" + struct.pack("<IHI", 8, 0, 0),
        "a WebP without data": b"RIFF\x0c\0\0\0WEBPVP8 \0\0\0\0",
        "a PPM with words": b"P6 forty thirty 255\n",
        "a PPM with no pixels": b"P6 40 30 255\n",
        "an EPS that runs a command": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n(%pipe%id) (w) file\n",
        "a FITS": b"SIMPLE  =                    T" + bytes(2850),
        "a text chunk that grows": png(40, 30, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000)))),
        "a profile that grows": png(40, 30, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(5_000_000)))),
    }
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF"):
        data = stored(kind)
        files |= {f"{kind}, {share:.0%} of it": data[: int(len(data) * share)] for share in (0.02, 0.4)}
    return files


def enormous() -> dict[str, bytes]:
    """Name -> content of small files that claim more pixels than are accepted."""
    return {
        "PNG 60,000 x 60,000": png(60_000, 60_000),
        "PNG of the largest size": png(2**31 - 1, 2**31 - 1),
        "PNG 1 x 2,000,000,000": png(1, 2_000_000_000),
        "PNG with 16 bits": png(30_000, 30_000, bits=16, colour=6),
        "JPEG 65,500 x 65,500": jpeg_of(65_500, 65_500),
        "GIF 65,535 x 65,535": resized(stored("GIF"), 6, "<HH", 65_535, 65_535),
        "BMP 100,000 x 100,000": resized(stored("BMP"), 18, "<ii", 100_000, 100_000),
        "TIFF 100,000 x 100,000": tiff_of(100_000, 100_000),
        "PPM 99,999 x 99,999": b"P6 99999 99999 255\n",
        "TGA 65,535 x 65,535": resized(stored("TGA"), 12, "<HH", 65_535, 65_535),
    }


def damaged() -> Iterator[tuple[str, bytes]]:
    """Files with random bytes in them; some can still be read."""
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "TGA", "JPEG2000"):
        for seed in range(5):
            rng, data = np.random.default_rng(seed), bytearray(stored(kind))
            for place in rng.integers(0, len(data), 12):
                data[place] = rng.integers(0, 256)
            yield f"{kind} {seed}", bytes(data)
