"""Files that Pillow reads wrongly without an error, and files that end early, are refused as picture and as mask."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from stored_pictures import HEIGHT, WIDTH, store, values

from regionedit.mask_files import open_mask
from regionedit.misread_files import PASSES
from regionedit.originals import open_source, pixels_of
from regionedit.picture_files import SIGNATURE, _chunk, encode
from regionedit.picture_metadata import Metadata


@pytest.mark.parametrize(
    ("mode", "tag", "value", "kind"),
    [
        ("L16", 262, 0, "16 bits a channel where 0 is white"),
        ("L", 339, 2, "8 bits with a sign"),
        ("L16", 284, 2, "channels in separate planes"),
        ("1", 284, 2, "channels in separate planes"),
        ("RGB", 254, 1, "a preview before the picture itself"),
    ],
)
def test_a_tiff_that_pillow_reads_wrongly_is_refused(tmp_path, mode, tag, value, kind):
    path, _ = store(tmp_path, "tif", mode)
    data, old = path.read_bytes(), struct.pack("<HHI", tag, 3, 1)
    if old in data:
        place = data.index(old) + len(old)
        path.write_bytes(data[:place] + struct.pack("<I", value) + data[place + 4 :])
    else:
        Image.open(path).save(path, tiffinfo={tag: value})
    for read in (open_source, open_mask):
        with pytest.raises(ValueError, match=rf"{path.name}: a TIFF with {kind}.*save it as a PNG"):
            read(path)


@pytest.mark.parametrize("strips", [(150, 151), (150, 0, 151)])
def test_a_tiff_without_some_of_its_rows_is_refused(tmp_path, strips):
    """Three rows of one pixel, each in a strip; Pillow shows a missing one black, or reads it from the header."""
    sizes, after = (256, 257, 258, 259, 262, 278), 8 + 2 + 12 * 8 + 4
    tags = [(tag, 1, value) for tag, value in zip(sizes, (1, 3, 8, 1, 1, 1), strict=True)]
    tags = sorted([*tags, (273, len(strips), after), (279, len(strips), after + 4 * len(strips))])
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", t, 4, n, v) for t, n, v in tags)
    places = struct.pack(f"<{2 * len(strips)}I", *strips, *[1] * len(strips))
    (tmp_path / "a.tif").write_bytes((head + bytes(4) + places).ljust(150) + b"abc")
    Image.open(tmp_path / "a.tif").load()
    with pytest.raises(ValueError, match="a TIFF with rows that are not in the file, .*save it as a PNG"):
        open_source(tmp_path / "a.tif")


def test_a_tiff_with_a_palette_of_8_bits_is_refused(tmp_path):
    """Some old programs write it; Pillow shows such a picture black."""
    path, _ = store(tmp_path, "tif", "P")
    with Image.open(path) as picture:
        palette = picture.tag_v2[320]
    stored = struct.pack(f"<{len(palette)}H", *palette)
    path.write_bytes(path.read_bytes().replace(stored, struct.pack(f"<{len(palette)}H", *(v >> 8 for v in palette))))
    assert not np.asarray(Image.open(path).convert("RGB")).any()
    with pytest.raises(ValueError, match="a TIFF with a palette of 8 bits, where 16 are meant, .*save it as a PNG"):
        open_source(path)


def test_a_palette_that_a_grey_tiff_does_not_use_is_no_reason_to_refuse_it(tmp_path):
    path, stored = store(tmp_path, "tif", "L")
    Image.open(path).save(path, tiffinfo={320: (7,) * 768})
    assert np.array_equal(pixels_of(open_source(path)), stored)


def psd_with_four_channels(layers: int) -> bytes:
    """One pixel; a negative number of layers says that the fourth channel is transparency."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 4, 1, 1, 8, 3) + bytes(8)
    return head + struct.pack(">IIhH", 8, 2, layers, 0) + bytes([0, 0, 1, 2, 3, 4])


def misread_file(name: str) -> bytes:
    """A file that Pillow reads wrongly without an error."""
    if name.endswith("fits"):
        cards = ("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", f"NAXIS1  = {WIDTH}", f"NAXIS2  = {HEIGHT}", "END")
        head = b"".join(card.encode().ljust(80) for card in cards).ljust(2880)
        return head + values(1, 32767, 0).astype(">i2").tobytes()
    if name.endswith("bmp"):  # of three pixels that are stored one by one, Pillow reads two
        head = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 126, 0, 0, 118, 40, 4, 1, 1, 4, 2, 8, 0, 0, 16, 0)
        return head + bytes(range(64)) + bytes([0, 3, 0x12, 0x30, 1, 0x40, 0, 0, 0, 1])
    if name.endswith("tga"):  # Pillow inverts the transparency
        return struct.pack("<3B5x2H2H2B2H", 0, 0, 2, 0, 0, 2, 1, 16, 1, 0x7FFF, 0xFFFF) + bytes(26)
    if name == "a.psd":  # Pillow takes 1 as white
        return b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, 1, 8, 1, 0) + bytes(14) + b"\x0f"
    if name.endswith("psd"):  # Pillow takes the selection as transparency
        return psd_with_four_channels(layers=1)
    buffer = io.BytesIO()  # Pillow fills the rest with the first colour
    Image.new("L", (2, 1), 255).save(buffer, "GIF")
    return buffer.getvalue()[:6] + struct.pack("<HH", 4, 3) + buffer.getvalue()[10:]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.fits", "FITS values of more than 8 bits"),
        ("a.bmp", "a BMP with compressed pixels of 4 bits"),
        ("a.tga", "a TGA of 16 bits a pixel"),
        ("a.psd", "a PSD in black and white"),
        ("b.psd", "a PSD with a saved selection"),
        ("a.gif", "a GIF whose first frame does not cover it"),
    ],
)
def test_a_file_that_pillow_reads_wrongly_is_refused(tmp_path, name, kind):
    (tmp_path / name).write_bytes(misread_file(name))
    Image.open(tmp_path / name).load()
    for read in (open_source, open_mask):
        with pytest.raises(ValueError, match=rf"{name}: {kind}, .*save it as a PNG"):
            read(tmp_path / name)


def test_the_transparency_of_a_psd_is_kept(tmp_path):
    (tmp_path / "a.psd").write_bytes(psd_with_four_channels(layers=-1))
    assert pixels_of(open_source(tmp_path / "a.psd")).tolist() == [[[1, 2, 3, 4]]]


PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
"""Noise has no row that looks like another one."""


def png(pixels_HWC: np.ndarray, rows: int | None = None, bits: int = 8, interlaced: bool = False) -> bytes:
    """A PNG with the first rows of these pixels, grey or RGB; Pillow writes no interlaced ones."""
    passes = PASSES if interlaced else ((0, 1, 0, 1),)
    stored = [
        b"\0" + np.packbits(np.unpackbits(row.reshape(-1, 1), axis=1)[:, -bits:]).tobytes()
        for top, down, left, right in passes
        for row in pixels_HWC[top::down, left::right]
        if row.size
    ]
    height, width, channels = pixels_HWC.shape
    head = struct.pack(">IIBBBBB", width, height, bits, 2 if channels == 3 else 0, 0, 0, interlaced)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(stored[:rows]))), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def jpeg(**options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("rows", "interlaced"), [(1, False), (HEIGHT - 1, False), (1, True), (30, True), (33, True)])
def test_a_png_with_fewer_rows_than_its_header_says_is_refused(tmp_path, rows, interlaced):
    path, total = tmp_path / "a.png", 34 if interlaced else HEIGHT
    path.write_bytes(png(PICTURE, rows, interlaced=interlaced))
    Image.open(path).load()
    for read in (open_source, open_mask):
        message = f"a.png: .*the file ends early: {total - rows} of {total} stored rows are missing"
        with pytest.raises(ValueError, match=message):
            read(path)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (1, 1), (1, 40), (40, 1), (5, 3)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_whole_png_of_any_size_is_read(tmp_path, size, bits, interlaced):
    grey_HW1 = np.resize(PICTURE, (*size, 1)) >> (8 - bits)
    (tmp_path / "a.png").write_bytes(png(grey_HW1, bits=bits, interlaced=interlaced))
    assert np.array_equal(pixels_of(open_source(tmp_path / "a.png")), grey_HW1 * (255 // (2**bits - 1)))


def test_a_png_whose_end_was_overwritten_with_zeros_is_refused(tmp_path):
    """A crash or an unfinished download leaves such files; Pillow reads the zeros as pixels."""
    data = png(PICTURE // 16)
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    Image.open(tmp_path / "a.png").load()
    with pytest.raises(ValueError, match="a.png: truncated or damaged picture .the checksums of its pixels are wrong"):
        open_source(tmp_path / "a.png")


JPEGS = ({}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}, {"optimize": True, "quality": 30})


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_a_jpeg_that_ends_early_is_refused(tmp_path, share, options):
    data = jpeg(**options)
    scan = data.rindex(b"\xff\xda") + 14  # the pixels of the last scan, or of the only one
    (tmp_path / "a.jpg").write_bytes(data[: scan + int(share * (len(data) - scan))] + b"\xff\xd9")
    Image.open(tmp_path / "a.jpg").load()
    for read in (open_source, open_mask):
        with pytest.raises(ValueError, match="a.jpg: .*the file ends early: pixels at its end are missing"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("grey", [False, True])
def test_a_whole_jpeg_is_read_with_whatever_follows_it(tmp_path, options, grey):
    buffer = io.BytesIO()
    picture = Image.new("RGB", (40, 30), (128, 128, 128)) if grey else Image.fromarray(PICTURE)
    picture.save(buffer, "JPEG", **options)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue() + b"a video of a telephone \xff\xd8\xff\xda" + jpeg()[:300])
    assert np.array_equal(pixels_of(open_source(tmp_path / "a.jpg")), np.asarray(Image.open(buffer)))


def test_a_jpeg_in_arithmetic_coding_may_leave_out_its_last_bytes(tmp_path):
    data = jpeg().replace(b"\xff\xc0", b"\xff\xc9")
    (tmp_path / "a.jpg").write_bytes(data[: data.index(b"\xff\xda") + 34] + b"\xff\xd9")
    assert open_source(tmp_path / "a.jpg").size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_deep_png_with_a_wrong_checksum_is_read_as_a_shallow_one(tmp_path, channels):
    stored = values(channels, 65535, 0).astype(np.uint16)
    data = bytearray(encode(stored, Metadata()))
    data[-13] ^= 1  # of the pixels; IEND follows
    (tmp_path / "c.png").write_bytes(data)
    assert np.array_equal(pixels_of(open_source(tmp_path / "c.png")), stored)
