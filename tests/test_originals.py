"""The source survives an edit: every mode, format and depth, bit for bit outside the region."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from stored_pictures import HEIGHT, KINDS, WIDTH, store, values

from regionedit.images import to_pictures
from regionedit.originals import (
    as_configured,
    encoded,
    file_notes,
    open_source,
    original_of,
    pixels_of,
    source_digest,
    source_format,
    with_original,
)
from regionedit.picture_files import SIGNATURE, SUFFIX_OF, _chunk, _header_bits, white_of
from regionedit.results import Patch, changed_outside, compose


def painted(view: Image.Image, mask: Image.Image, seed: int = 0, match: float = 0.0) -> Image.Image:
    """The view with random colours in the mask."""
    return compose(view, [Patch((0, 0, WIDTH, HEIGHT), random_edit(seed))], mask, match)


def random_edit(seed: int) -> torch.Tensor:
    return torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def reopened(result: Image.Image, folder, kind: str = "PNG") -> Image.Image:
    path = folder / f"result.{kind.lower()}"
    path.write_bytes(encoded(result, kind))
    return open_source(path)


def random_mask(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.choice([0, 0, 1, 128, 255], (HEIGHT, WIDTH)).astype(np.uint8))


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99), match=st.sampled_from([0.0, 2.0]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pixels_outside_the_mask_are_those_of_the_file(tmp_path, kind, seed, match):
    path, stored = store(tmp_path, *kind, seed=seed)
    view, mask = open_source(path), random_mask(seed)
    assert np.array_equal(pixels_of(view), stored) and pixels_of(view).dtype == stored.dtype
    result = painted(view, mask, seed, match)
    again = reopened(result, tmp_path)
    outside, kept = np.asarray(mask) == 0, pixels_of(again)
    assert kept.dtype == stored.dtype and kept.shape == stored.shape
    assert np.array_equal(kept[outside], stored[outside])
    assert np.array_equal(kept, pixels_of(result)) and np.array_equal(np.asarray(again), np.asarray(result))
    assert changed_outside(view, result, mask) == 0
    if stored.shape[2] % 2 == 0:
        assert np.array_equal(kept[..., -1], stored[..., -1])


@pytest.mark.parametrize(("suffix", "mode"), KINDS)
def test_every_kind_of_file_is_kept_without_an_edit(tmp_path, suffix, mode):
    path, stored = store(tmp_path, suffix, mode)
    assert np.array_equal(pixels_of(reopened(open_source(path), tmp_path)), stored)


@pytest.mark.parametrize("mode", ["L16", "RGB16", "RGBA16", "RGB12", "RGBA", "LA"])
def test_what_is_painted_looks_as_the_model_meant_it(tmp_path, mode):
    """The view of the result is the edit, where the picture is opaque, in grey for a grey picture."""
    path, stored = store(tmp_path, "png", mode)
    mask = Image.new("L", (WIDTH, HEIGHT), 255)
    view = open_source(path)
    seen = np.asarray(painted(view, mask)).astype(int)
    meant = to_pictures(random_edit(0)[None])[0]
    meant = meant.convert("L").convert("RGB") if mode.startswith("L") else meant
    opaque = np.full((HEIGHT, WIDTH), True) if stored.shape[2] % 2 else stored[..., -1] == np.iinfo(stored.dtype).max
    assert np.abs(seen - np.asarray(meant))[opaque].max() <= 1
    clear = np.zeros_like(opaque) if stored.shape[2] % 2 else stored[..., -1] == 0
    assert np.array_equal(pixels_of(painted(view, mask))[clear], stored[clear])


def deep_tiff(path, values: np.ndarray, orientation: int = 1, compressed: bool = False, tile: int = 0) -> None:
    """A little-endian TIFF with 16 bits a channel, which Pillow cannot write; compressed or plain, or in one tile."""
    height, width, channels = values.shape
    values = np.pad(values, ((0, max(tile - height, 0)), (0, max(tile - width, 0)), (0, 0)))
    data = values.astype("<u2").tobytes()
    data = zlib.compress(data) if compressed else data
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 0), (259, 3, 1, 8 if compressed else 1),
        (262, 3, 1, 2), (273, 4, 1, 0), (274, 3, 1, orientation), (277, 3, 1, channels), (278, 4, 1, height),
        (279, 4, 1, len(data)), *([(338, 3, 1, 2)] if channels == 4 else []),
    ]  # fmt: skip
    if tile:
        kept = [tag for tag in tags if tag[0] not in (273, 278, 279)]
        tags = sorted([*kept, (322, 3, 1, tile), (323, 3, 1, tile), (324, 4, 1, 0), (325, 4, 1, len(data))])
    start = 8 + 2 + 12 * len(tags) + 4
    places = {258: start, 273: start + 2 * channels, 324: start + 2 * channels}
    entries = b"".join(struct.pack("<HHII", tag, kind, count, places.get(tag, v)) for tag, kind, count, v in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + struct.pack("<H", 16) * channels
    path.write_bytes(head + data)


def deep_file(folder, name: str):
    path = folder / name
    rgb = values(3, 65535, 0).astype(np.uint16)
    if name == "compressed.tif":
        deep_tiff(path, rgb, compressed=True)
    elif name == "rgb.ppm":
        path.write_bytes(b"P6 23 17 65535\n" + rgb.astype(">u2").tobytes())
    elif name == "grey.jp2":
        Image.fromarray(rgb[..., 0]).save(path)
        return path
    elif name == "rgb.sgi":
        head = struct.pack(">HBBHHHHII", 474, 0, 2, 3, WIDTH, HEIGHT, 3, 0, 65535)
        path.write_bytes(head.ljust(512, b"\0") + rgb[::-1].transpose(2, 0, 1).astype(">u2").tobytes())
    elif name == "floats.dds":
        head = struct.pack("<4s7I", b"DDS ", 124, 0x1007, 4, 4, 16, 0, 0).ljust(76, b"\0")
        form = struct.pack("<2I4s5II16x", 32, 4, b"DX10", 0, 0, 0, 0, 0, 0x1000)
        path.write_bytes(head + form + struct.pack("<5I", 95, 3, 0, 1, 0) + bytes([3] + [7] * 15))
    elif name == "float.tif":
        Image.fromarray(rgb[..., 0] / np.float32(65535)).save(path)
    else:
        Image.fromarray(rgb[..., 0].astype(np.int32) * 30000).save(path)
    return path


@pytest.mark.parametrize("name", ["compressed.tif", "rgb.ppm", "float.tif", "large.tif", "rgb.sgi", "floats.dds"])
def test_a_depth_that_cannot_be_kept_is_refused_with_the_way_out(tmp_path, name):
    view = open_source(deep_file(tmp_path, name))
    with pytest.raises(ValueError, match=f"{name}: it has .*--depth 8") as refused:
        as_configured(view, "source", strip_metadata=False)
    assert "\n" not in str(refused.value)
    reduced = as_configured(view, 8, strip_metadata=False)
    assert "reduced to 8 bits a channel" in reduced.info["notes"] and np.array_equal(
        np.asarray(view), np.asarray(reduced)
    )
    if reduced.size == (WIDTH, HEIGHT):
        result = painted(reduced, random_mask(0))
        assert pixels_of(result).dtype == np.uint8 and changed_outside(reduced, result, random_mask(0)) == 0
    assert as_configured(reduced, "source", strip_metadata=False) is reduced


@pytest.mark.parametrize("orientation", [1, 2, 6])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "L16"])
def test_a_tiff_is_turned_upright_in_every_mode(tmp_path, mode, orientation):
    path, stored = store(tmp_path, "tif", mode)
    Image.open(path).save(tmp_path / "turned.tif", tiffinfo={274: orientation})
    turned = {1: stored, 2: stored[:, ::-1], 6: np.rot90(stored, -1)}[orientation]
    view = open_source(tmp_path / "turned.tif")
    assert np.array_equal(pixels_of(view), turned)
    assert ("turned upright as its EXIF data says" in view.info["notes"]) == (orientation > 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour_in_a_plain_tiff_is_kept(tmp_path, channels, orientation):
    stored = values(channels, 65535, 1).astype(np.uint16)
    deep_tiff(tmp_path / "d.tif", stored, orientation)
    flat = (stored >> 8).astype(np.uint8)
    Image.fromarray(flat).save(tmp_path / "flat.tif", tiffinfo={274: orientation})
    view = open_source(tmp_path / "d.tif")
    turned = pixels_of(open_source(tmp_path / "flat.tif"))
    assert original_of(view).refusal == "" and np.array_equal(pixels_of(view) >> 8, turned)
    if orientation == 1:
        assert np.array_equal(pixels_of(reopened(view, tmp_path)), stored)
        assert source_format(view)[0] == "" and "result.png has it" in source_format(view)[1]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_tile_that_is_larger_than_the_picture_is_cut(tmp_path, channels):
    stored = values(channels, 65535, 1).astype(np.uint16)
    deep_tiff(tmp_path / "t.tif", stored, tile=32)
    assert np.array_equal(pixels_of(open_source(tmp_path / "t.tif")), stored)


@pytest.mark.parametrize(
    ("meaning", "channels", "note"),
    [
        (0, 3, "1 of the file's 4 channels hold neither colour nor transparency: left out"),
        (1, 4, "colours premultiplied with alpha were divided by it"),
    ],
)
def test_a_tiff_s_fourth_channel_that_is_no_alpha_of_a_png_is_said(tmp_path, meaning, channels, note):
    path, stored = store(tmp_path, "tif", "RGBA")
    if meaning == 1:
        stored[..., :3] = np.minimum(stored[..., :3], stored[..., 3:])
    Image.fromarray(stored).save(path)
    data, tag = path.read_bytes(), struct.pack("<HHI", 338, 3, 1)
    path.write_bytes(data.replace(tag + struct.pack("<I", 2), tag + struct.pack("<I", meaning)))
    view = open_source(path)
    kept = pixels_of(view)
    assert note in "; ".join(view.info["notes"]) and kept.shape[2] == channels
    if meaning == 1:
        back = kept[..., :3] * (kept[..., 3:] / 255)
        assert np.array_equal(kept[..., 3], stored[..., 3]) and np.abs(back - stored[..., :3]).max() <= 1
    else:
        assert np.array_equal(kept, stored[..., :3])


def test_a_bmp_of_16_bits_a_pixel_has_at_most_8_a_channel(tmp_path):
    head = b"BM" + struct.pack("<IHHI", 66 + 12, 0, 0, 66)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    (tmp_path / "a.bmp").write_bytes(head + info + struct.pack("<4H", 0xF800, 0x7E0, 0x1F, 0xFFFF))
    view = as_configured(open_source(tmp_path / "a.bmp"), "source", strip_metadata=False)
    assert pixels_of(view).tolist() == [[[0, 0, 255], [255, 255, 255]], [[255, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_transparent_grey_of_a_shallow_png_is_kept(tmp_path, bits):
    top = 2**bits - 1
    numbers = values(1, top, 0)[..., 0].astype(np.uint8)
    rows = np.packbits(np.unpackbits(numbers[..., None], axis=2)[..., -bits:].reshape(HEIGHT, -1), axis=1)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())),
        (b"IEND", b""),
    ]
    (tmp_path / "s.png").write_bytes(SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks))
    expected = np.dstack([numbers * (255 // top), np.where(numbers == 1, 0, 255)])
    assert np.array_equal(pixels_of(open_source(tmp_path / "s.png")), expected)


def test_deep_grey_in_jpeg_2000_is_kept(tmp_path):
    view = open_source(deep_file(tmp_path, "grey.jp2"))
    assert np.array_equal(pixels_of(view)[..., 0], values(3, 65535, 0)[..., 0])


@pytest.mark.parametrize(
    ("kind", "head", "bits"),
    [
        ("AVIF", b"....av1C\x81\x04\x0c\x00", 8),
        ("AVIF", b"....av1C\x81\x04\x4c\x00", 10),
        ("AVIF", b"....av1C\x81\x44\x6c\x00", 12),
        ("JPEG2000", b"\xff\x4f\xff\x51" + bytes(38) + b"\x0f\x01\x01", 16),
        ("AVIF", b"nothing", 0),
    ],
)
def test_the_header_names_the_depth(kind, head, bits):
    assert _header_bits(head, kind) == bits


@pytest.mark.parametrize(("suffix", "mode"), [("png", "RGB16"), ("png", "RGBA16"), ("png", "L16"), ("tif", "L12")])
def test_depth_8_reduces_what_could_be_kept(tmp_path, suffix, mode):
    view = open_source(store(tmp_path, suffix, mode)[0])
    reduced = as_configured(view, 8, strip_metadata=False)
    assert pixels_of(reduced).dtype == np.uint8 and np.array_equal(np.asarray(reduced), np.asarray(view))
    assert not any("are kept; the models" in note for note in reduced.info["notes"])
    assert reopened(painted(reduced, random_mask(1)), tmp_path).size == view.size


@pytest.mark.parametrize(("suffix", "mode"), [("png", "L12"), ("tif", "L12"), ("tif", "I"), ("png", "RGB12")])
def test_twelve_bits_are_seen_by_the_range_that_is_there(tmp_path, suffix, mode):
    path, stored = store(tmp_path, suffix, mode)
    view = open_source(path)
    white = 65535 if mode == "I" else 4095
    assert np.abs(np.asarray(view).astype(float) - stored * (255 / white)).max() <= 0.5 + 1e-9
    assert white == 65535 or any("4095 as white" in note for note in view.info["notes"])
    assert pixels_of(painted(view, Image.new("L", (WIDTH, HEIGHT), 255))).max() <= white


def test_the_range_is_an_even_number_of_bits():
    tops = {0: 65535, 200: 255, 256: 1023, 4095: 4095, 4096: 16383, 60000: 65535, 2**31 - 1: 2**31 - 1}
    assert {top: white_of(np.array([0, top])) for top in tops} == tops


def test_a_second_edit_goes_on_from_the_first_at_full_depth(tmp_path):
    path, stored = store(tmp_path, "png", "RGBA16")
    first, second = random_mask(1), random_mask(2)
    once = painted(open_source(path), first, 1)
    twice = painted(with_original(once), second, 2)
    assert np.array_equal(pixels_of(open_source(path)), stored), "the source itself is never written to"
    only_first = np.asarray(second) == 0
    assert np.array_equal(pixels_of(twice)[only_first], pixels_of(once)[only_first])
    assert changed_outside(open_source(path), twice, ImageChops.lighter(first, second)) == 0


def test_a_region_that_is_wider_than_its_mask_is_said(tmp_path):
    view = open_source(store(tmp_path, "png", "RGB")[0])
    drawn, wider = Image.new("L", view.size), Image.new("L", view.size)
    drawn.paste(255, (2, 2, 6, 5))
    wider.paste(255, (1, 2, 6, 5))
    assert file_notes(view, drawn, drawn, "png") == [] == file_notes(view, None, wider, "png")
    (note,) = file_notes(view, drawn, wider, "png")
    assert "mask: 3 pixels were added to it by region.grow" in note


def test_the_same_picture_has_one_digest_and_another_alpha_another(tmp_path):
    path, stored = store(tmp_path, "png", "RGBA")
    other = stored.copy()
    other[stored[..., 3] == 0, 0] ^= 1  # colour that nobody sees
    Image.fromarray(other).save(tmp_path / "other.png")
    assert source_digest(open_source(path)) == source_digest(with_original(Image.open(path)))
    assert source_digest(open_source(path)) != source_digest(open_source(tmp_path / "other.png"))


@pytest.mark.parametrize("suffix", ["webp", "tif"])
def test_the_sources_format_is_exact_where_it_can_be(tmp_path, suffix):
    path, stored = store(tmp_path, suffix, "RGBA")
    view = open_source(path)
    kind, remark = source_format(view)
    result = painted(view, random_mask(0))
    assert SUFFIX_OF[kind] == suffix and not remark
    assert np.array_equal(pixels_of(reopened(result, tmp_path, kind)), pixels_of(result))


def test_a_jpeg_is_written_like_its_source_and_admits_its_loss(tmp_path):
    smooth = np.add.outer(np.arange(64), 2 * np.arange(96)).astype(np.uint8)
    Image.fromarray(np.dstack([smooth, smooth.T[:64, :1].repeat(96, 1), smooth])).save(tmp_path / "s.jpg", quality=60)
    view = open_source(tmp_path / "s.jpg")
    kind, remark = source_format(view)
    assert kind == "JPEG" and "result.png is exact" in remark
    data = encoded(view, kind)
    written = Image.open(io.BytesIO(data))
    assert written.quantization == Image.open(tmp_path / "s.jpg").quantization
    assert np.abs(np.asarray(written).astype(int) - np.asarray(view)).max() <= 3


def test_a_jpeg_whose_tables_are_not_numbered_from_0_is_written_all_the_same(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(values(1, 255, 0).astype(np.uint8)[..., 0]).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    data[data.index(b"\xff\xdb") + 4] = data[data.index(b"\xff\xc0") + 12] = 1
    (tmp_path / "1.jpg").write_bytes(data)
    view = open_source(tmp_path / "1.jpg")
    assert list(Image.open(tmp_path / "1.jpg").quantization) == [1]
    assert np.abs(np.asarray(reopened(view, tmp_path, "JPEG")).astype(int) - np.asarray(view)).max() <= 16


@pytest.mark.parametrize(("suffix", "mode"), [("gif", "P"), ("png", "RGB")])
def test_other_formats_are_written_as_png_alone(tmp_path, suffix, mode):
    kind, remark = source_format(open_source(store(tmp_path, suffix, mode)[0]))
    assert kind == "" and ("result.png has it" in remark) == (suffix == "gif")


def test_a_crop_or_a_foreign_view_is_its_own_original(tmp_path):
    view = open_source(store(tmp_path, "png", "RGBA16")[0])
    part = view.crop((0, 0, 5, 5))
    assert original_of(part).pixels_HWC is None and np.array_equal(pixels_of(part), np.asarray(part))
