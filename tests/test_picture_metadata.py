"""What a file says beside its pixels reaches the result's file, upright and without the old thumbnail."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from regionedit.originals import as_configured, encoded, open_source, original_of, source_format, with_original
from regionedit.picture_files import encode
from regionedit.picture_metadata import Metadata

MAKER, EXPOSURE, CAMERA = 37500, 33434, 271
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" dc:title="at the lake"/></x:xmpmeta>'
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}


def pixels(width=24, height=16, channels=3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def camera_exif(orientation=6) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[CAMERA] = orientation, "Camera"
    exif[ExifTags.IFD.Exif] = {EXPOSURE: 0.5, MAKER: b"maker\0note", 40962: 24, 40963: 16}
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (46.0, 30.0, 0.0)}
    return exif


def photograph(folder, suffix: str):
    path = folder / f"p.{suffix}"
    options = {"exif": camera_exif().tobytes(), "dpi": (300, 300), "icc_profile": SRGB, "lossless": True}
    Image.fromarray(pixels()).save(path, **options | ({"xmp": XMP} if suffix in ("jpg", "webp") else {}))
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["PNG", "source"])
def test_metadata_survives_and_the_orientation_is_reset(tmp_path, suffix, kind):
    view = open_source(photograph(tmp_path, suffix))
    assert view.size == (16, 24)
    written = Image.open(io.BytesIO(encoded(view, FORMATS[suffix] if kind == "source" else "PNG")))
    exif = written.getexif()
    assert written.size == (16, 24) and exif.get(ExifTags.Base.Orientation, 1) == 1
    assert exif[CAMERA] == "Camera" and exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (46.0, 30.0, 0.0)
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert inner[EXPOSURE] == 0.5 and inner[MAKER] == b"maker\0note" and (inner[40962], inner[40963]) == (16, 24)
    assert written.info["icc_profile"] == SRGB
    if suffix != "webp":  # it has no resolution of its own
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    if suffix in ("jpg", "webp"):
        xmp = written.info["xmp"]
        assert b"at the lake" in xmp and b"Orientation" not in xmp
    written.load()
    if (FORMATS[suffix] if kind == "source" else "PNG") != "JPEG":
        assert np.array_equal(np.asarray(written), np.asarray(view))


@pytest.mark.parametrize(
    "written",
    [
        b"tiff:Orientation='6'",
        b'tiff:Orientation = "6"',
        b't:Orientation="6"',
        b"/><t:Orientation>6\n</t:Orientation><d ",
    ],
)
def test_the_orientation_is_taken_out_of_xmp_however_it_is_written(tmp_path, written):
    xmp = XMP.replace(b'tiff:Orientation="6"', written)
    Image.fromarray(pixels()).save(tmp_path / "x.jpg", exif=camera_exif(3), xmp=xmp)
    kept = original_of(open_source(tmp_path / "x.jpg")).metadata.xmp
    assert b"Orientation" not in kept and b"at the lake" in kept


@pytest.mark.parametrize(
    ("name", "segment", "note"),
    [
        (b"hdrgm:Version", b"", "the gain map for HDR screens was left out"),
        (
            b"dc:title",
            b"\xff\xe2\0\x22urn:iso:std:iso:ts:21496:-1\0\0\0\0\0",
            "the gain map for HDR screens was left out",
        ),
        (b"GCamera:MotionPhoto", b"", "the video of the moving photograph was left out"),
    ],
)
def test_what_else_a_phone_s_photograph_has_is_said(tmp_path, name, segment, note):
    both = [Image.fromarray(pixels()), Image.fromarray(pixels()[:8, :12])]
    xmp = XMP.replace(b"dc:title", name)
    both[0].save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=both[1:], xmp=xmp)
    data = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(data[:2] + segment + data[2:])
    assert open_source(tmp_path / "p.jpg").info["notes"][1:] == [note]


def test_a_colour_profile_with_a_missing_part_is_left_out_and_said(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "p.jpg", icc_profile=bytes(100_000))
    data = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(data.replace(b"ICC_PROFILE\0\2", b"IC?_PROFILE\0\2"))
    view = open_source(tmp_path / "p.jpg")
    assert original_of(view).metadata.icc_profile == b""
    assert "the colour profile is damaged: it was left out" in view.info["notes"]


def test_xmp_that_goes_on_in_another_segment_is_said(tmp_path):
    Image.fromarray(pixels()).save(
        tmp_path / "p.jpg", xmp=XMP.replace(b"dc:title", b'xmpNote:HasExtendedXMP="0" dc:title')
    )
    view = open_source(tmp_path / "p.jpg")
    assert b"at the lake" in original_of(view).metadata.xmp
    assert "XMP data beyond the first 64 KB was left out" in view.info["notes"]


def test_the_largest_exif_block_of_a_jpeg_is_kept():
    exif = Image.Exif()
    exif[CAMERA], exif[50341] = "Camera", bytes(65_400)
    written = Image.open(io.BytesIO(encode(pixels(), Metadata(exif=exif.tobytes()), "JPEG")))
    assert written.getexif()[CAMERA] == "Camera"


def test_a_deep_png_has_them_too(tmp_path):
    Image.fromarray(pixels(channels=1).astype(np.uint16) * 257).save(
        tmp_path / "d.png", exif=camera_exif(), dpi=(300, 300)
    )
    view = open_source(tmp_path / "d.png")
    written = Image.open(io.BytesIO(encoded(view)))
    assert written.size == (16, 24) and written.getexif()[CAMERA] == "Camera" and written.info["dpi"][0] > 299
    assert np.array_equal(np.asarray(written), np.rot90(pixels(channels=1).astype(np.uint16) * 257, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_picture_is_turned_as_pillow_turns(tmp_path, orientation):
    bands = pixels().astype(np.uint16) * 257
    Image.fromarray(pixels()).save(tmp_path / "8.png", exif=camera_exif(orientation))
    (tmp_path / "16.png").write_bytes(encode(bands, Metadata(exif=camera_exif(orientation).tobytes())))
    assert np.array_equal(np.asarray(open_source(tmp_path / "16.png")), np.asarray(open_source(tmp_path / "8.png")))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_the_colours_of_a_png_without_a_profile_are_kept(tmp_path, depth):
    chunks = PngInfo()
    chunks.add(b"gAMA", (45455).to_bytes(4, "big"))
    chunks.add(b"cHRM", b"".join(value.to_bytes(4, "big") for value in range(30000, 30008)))
    chunks.add(b"sRGB", b"\1")
    chunks.add(b"cICP", b"\t\x10\0\1")
    (tmp_path / "g.png").write_bytes(encode(pixels().astype(depth), Metadata(), chunks=chunks))
    before = Image.open(tmp_path / "g.png").info
    data = encoded(open_source(tmp_path / "g.png"))
    after = Image.open(io.BytesIO(data)).info
    assert before == after and {"gamma", "chromaticity", "srgb"} <= set(after)
    assert b"\0\0\0\4cICP\t\x10\0\1" in data


def test_the_resolution_is_turned_and_never_invented(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels()).save(tmp_path / "p.tif", exif=exif, dpi=(100, 300))
    assert original_of(open_source(tmp_path / "p.tif")).metadata.dpi == (300, 100)
    Image.fromarray(pixels()).save(tmp_path / "p.tif")
    assert original_of(open_source(tmp_path / "p.tif")).metadata.dpi is None
    Image.fromarray(pixels()).save(tmp_path / "p.tif", dpi=(100, 300))  # and no orientation
    assert original_of(open_source(tmp_path / "p.tif")).metadata.dpi == (100, 300)

    Image.fromarray(pixels()).save(tmp_path / "p.jpg", exif=exif)  # with EXIF data, but no resolution
    assert original_of(open_source(tmp_path / "p.jpg")).metadata.dpi is None

    exif[282], exif[283] = 100.0, 300.0
    for suffix in ("jpg", "png", "webp", "tif"):
        Image.fromarray(pixels()).save(tmp_path / f"r.{suffix}", exif=exif)
        for kind in ("PNG", FORMATS[suffix]):
            written = Image.open(io.BytesIO(encoded(open_source(tmp_path / f"r.{suffix}"), kind))).getexif()
            assert (written[282], written[283]) == (300, 100)


@pytest.mark.parametrize("text", ["© Jörg Müller".encode(), "© Jörg".encode("latin-1"), "撮影者".encode()])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_texts_in_exif_keep_their_bytes(tmp_path, text, suffix):
    """The artist's name in the first directory, the lens in the second; cameras and programs write UTF-8. The comment
    stays of type 7."""
    text = text.ljust(25, b".") + b"\0"
    first = struct.pack("<HHHII", 2, 315, 2, len(text), 38) + struct.pack("<HHIII", 34665, 4, 1, 38 + len(text), 0)
    places = 38 + len(text) + 30, 38 + len(text) + 30 + len(text)
    second = struct.pack("<HHHIIHHIII", 2, 37510, 7, 13, places[1], 42036, 2, len(text), places[0], 0)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + text + second + text + b"ASCII\0\0\0hello"
    Image.fromarray(pixels()).save(tmp_path / f"p.{suffix}", exif=block)
    for kind in FORMATS.values():
        data = encoded(open_source(tmp_path / f"p.{suffix}"), kind)
        assert data.count(text) == 2 and data.count(struct.pack("<HHI", 37510, 7, 13)) == 1


def test_texts_of_a_tiff_keep_their_bytes(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "p.tif", tiffinfo={315: "© Jörg".encode()})
    for kind in ("PNG", "TIFF"):
        data = encoded(open_source(tmp_path / "p.tif"), kind)
        assert "© Jörg".encode() + b"\0" in data and 34853 not in Image.open(io.BytesIO(data)).getexif()


@pytest.mark.parametrize("dpi", [(70_000, 70_000), (2**32 - 1, 1)])
def test_a_resolution_that_a_format_cannot_hold_is_left_out(dpi):
    for kind in ("PNG", "JPEG", "TIFF"):
        written = Image.open(io.BytesIO(encode(pixels(), Metadata(dpi=dpi), kind)))
        held = kind == "TIFF" or (kind == "PNG" and dpi[0] == 70_000)
        assert written.info.get("dpi", (0, 0)) == (pytest.approx(dpi) if held else (0, 0))


def test_texts_of_a_png_are_no_settings_whatever_their_names(tmp_path):
    texts = PngInfo()
    for name in ("transparency", "exif_orientation", "bit_depth", "icc_profile", "dpi", "gamma", "notes", "xmp"):
        texts.add_text(name, "6")
    for picture in (Image.fromarray(pixels()), Image.fromarray(pixels(channels=1))):
        picture.save(tmp_path / "t.png", pnginfo=texts)
        view = open_source(tmp_path / "t.png")
        assert "exif_orientation" not in view.info and original_of(view).metadata == Metadata()
        assert not [note for note in view.info["notes"] if "grey" not in note] and view.size == (24, 16)


@pytest.mark.parametrize("data", [XMP.decode().encode("utf-16"), XMP.replace(b"lake", b"Seek\xfcste")])
def test_xmp_that_is_not_utf_8_is_left_out_and_said(tmp_path, data):
    Image.fromarray(pixels()).save(tmp_path / "x.tif", tiffinfo={700: data})
    view = open_source(tmp_path / "x.tif")
    assert original_of(view).metadata.xmp == b"" and "XMP data was left out: it is not UTF-8" in view.info["notes"]


def test_nothing_personal_is_left_with_strip_metadata(tmp_path):
    view = as_configured(open_source(photograph(tmp_path, "jpg")), "source", strip_metadata=True)
    written = Image.open(io.BytesIO(encoded(view)))
    assert not written.getexif() and not {"dpi", "xmp", "exif"} & set(written.info)
    assert written.info["icc_profile"] == SRGB


def test_the_thumbnail_of_the_picture_before_the_edit_is_left_out(tmp_path):
    small = io.BytesIO()
    Image.fromarray(pixels()[::-1]).save(small, "JPEG")
    entry = struct.Struct("<HHII")
    first = struct.pack("<H", 1) + entry.pack(CAMERA, 2, 4, int.from_bytes(b"Cam\0", "little")) + struct.pack("<I", 26)
    second = struct.pack("<H", 2) + entry.pack(513, 4, 1, 56) + entry.pack(514, 4, 1, len(small.getvalue())) + bytes(4)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + small.getvalue()
    path = tmp_path / "t.jpg"
    Image.fromarray(pixels()).save(path, exif=block)
    assert small.getvalue()[-120:-20] in path.read_bytes()
    for kind in ("PNG", "JPEG"):
        data = encoded(open_source(path), kind)
        assert Image.open(io.BytesIO(data)).getexif()[CAMERA] == "Cam"
        assert small.getvalue()[-120:-20] not in data


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_left_out(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    view = open_source(tmp_path / "b.jpg")
    assert original_of(view).metadata.exif == b"" and view.size == (24, 16)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "RGBA"])
def test_the_profile_is_kept_or_converted_and_said(tmp_path, mode):
    profile = {"L": b"grey profile", "LA": b"grey profile"}.get(mode, SRGB)
    path = tmp_path / ("p.jpg" if mode == "CMYK" else "p.png")
    Image.fromarray(pixels()).convert(mode).save(path, icc_profile=profile)
    view = open_source(path)
    written = Image.open(io.BytesIO(encoded(view)))
    if mode == "CMYK":  # no profile of sRGB can describe CMYK: it is as good as damaged
        assert "icc_profile" not in written.info and any("profile is damaged" in note for note in view.info["notes"])
    else:
        assert written.info["icc_profile"] == profile
        assert written.mode == ("RGB" if mode == "P" else mode)


def test_cmyk_is_converted_by_its_profile(tmp_path, monkeypatch):
    """With a stand-in for the conversion: no CMYK profile is at hand."""
    picture = Image.fromarray(pixels()).convert("CMYK")
    picture.save(tmp_path / "c.jpg", icc_profile=b"a press")
    seen = []

    def converted(given, source, target, outputMode):
        seen.append((given.mode, source.read(), outputMode))
        return Image.new("RGB", given.size, (1, 2, 3))

    monkeypatch.setattr(ImageCms, "profileToProfile", converted)
    view = open_source(tmp_path / "c.jpg")
    assert seen == [("CMYK", b"a press", "RGB")] and view.getpixel((0, 0)) == (1, 2, 3)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(Image.open(io.BytesIO(encoded(view))).info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile) and "sRGB" in view.info["notes"][0]


def test_a_phones_two_pictures_in_one_file_are_no_animation(tmp_path):
    both = [Image.fromarray(pixels()), Image.fromarray(pixels()[:8, :12])]
    both[0].save(tmp_path / "p.mpo", save_all=True, append_images=both[1:])
    view = open_source(tmp_path / "p.mpo")
    assert Image.open(tmp_path / "p.mpo").format == "MPO"
    assert view.info["notes"] == [] and source_format(view)[0] == "JPEG" and view.size == (24, 16)


def test_metadata_of_a_picture_in_memory():
    picture = Image.fromarray(pixels())
    picture.info |= {"dpi": (0, float("nan")), "exif": camera_exif(1).tobytes()}
    metadata = original_of(with_original(picture)).metadata
    assert metadata.dpi is None and b"Camera" in metadata.exif
