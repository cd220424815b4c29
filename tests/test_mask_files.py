"""A mask file means what its maker meant: kinds of files, their modes and formats, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from regionedit.images import open_picture, upright_rgb
from regionedit.mask_files import MaskReading, open_mask, understand
from regionedit.mask_sources.drawn import drawn_mask
from regionedit.records import EditRequest

SIZE = (60, 44)
BOX = (12, 10, 31, 33)  # x1 and y1 are excluded
EDIT = np.zeros(SIZE[::-1], bool)
EDIT[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True


def photograph(seed: int = 0) -> Image.Image:
    """Soft coloured areas with grain, as a camera gives them."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(20, 230, (5, 6, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(low) + rng.normal(0, 8, (*SIZE[::-1], 3))).clip(0, 255).astype(np.uint8))


def flat_picture() -> Image.Image:
    """A drawing in flat colours, like those of the microworld."""
    drawing = Image.new("RGB", SIZE, (235, 235, 220))
    ImageDraw.Draw(drawing).ellipse((5, 5, 25, 25), fill=(200, 30, 40))
    ImageDraw.Draw(drawing).rectangle((35, 20, 55, 40), fill=(30, 60, 200))
    return drawing


PICTURE = upright_rgb(photograph())


def white(mode: str = "L", on=255, off=0) -> Image.Image:
    values = np.where(EDIT, on, off)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def layer(colour, opacity: int = 255) -> Image.Image:
    """A stroke on a transparent layer."""
    rgba = np.zeros((*SIZE[::-1], 4), np.uint8)
    rgba[EDIT] = (*colour, opacity)
    return Image.fromarray(rgba)


def hole(picture: Image.Image) -> Image.Image:
    """The picture with the part to edit erased."""
    rgba = np.asarray(picture.convert("RGBA")).copy()
    rgba[EDIT] = 0
    return Image.fromarray(rgba)


def palette_layer() -> Image.Image:
    """One opaque colour of a palette, the other transparent, as GIF and PNG-8 have it."""
    indices = Image.fromarray(EDIT.astype(np.uint8)).convert("L")
    made = Image.frombytes("P", SIZE, indices.tobytes())
    made.putpalette([0, 0, 0, 0, 120, 30])
    made.info["transparency"] = 0
    return made


def stored(picture: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    """What a file of this format holds, with the attributes that Pillow gives an opened file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    buffer.seek(0)
    opened = Image.open(buffer)
    opened.load()
    return opened


def numbers(values, dtype=np.uint8) -> Image.Image:
    """Numbered objects: stripes of the given values on 0."""
    pixels = np.zeros(SIZE[::-1], dtype)
    for place, value in enumerate(values):
        pixels[5:35, 3 + 9 * place : 10 + 9 * place] = value
    return Image.fromarray(pixels)


def on_black(colour: str) -> Image.Image:
    return Image.composite(Image.new("RGB", SIZE, colour), Image.new("RGB", SIZE), white())


UNDERSTOOD = {
    "white on black": (white(), "white is edited"),
    "1 bit": (white("1"), "white is edited"),
    "grey palette": (white("P"), "white is edited"),
    "RGB": (white("RGB"), "white is edited"),
    "CMYK": (white("RGB").convert("CMYK"), "white is edited"),
    "video range": (white(on=235, off=16), "the brighter value is edited"),
    "16 bit": (Image.fromarray((EDIT * 65535).astype(np.uint16)), "white is edited"),
    "12 bit in 16": (Image.fromarray((EDIT * 4095).astype(np.uint16)), "white is edited"),
    "8 bit in 16": (Image.fromarray((EDIT * 255).astype(np.uint16)), "white is edited"),
    "32 bit": (Image.fromarray((EDIT * 65535).astype(np.int32)), "white is edited"),
    "floats": (Image.fromarray(EDIT.astype(np.float32)), "white is edited"),
    "opaque with alpha": (white("RGBA"), "white is edited"),
    "grey with alpha": (white("LA"), "white is edited"),
    "red on black": (on_black("red"), "strokes"),
    "dark blue on black": (on_black("#000060"), "strokes"),
    "colour palette": (on_black("red").quantize(2), "strokes"),
    "red on black as JPEG": (stored(on_black("red"), "JPEG", quality=95, subsampling=0), "strokes"),
    "a red layer": (layer((255, 0, 0)), "strokes"),
    "a black layer": (layer((0, 0, 0)), "strokes"),
    "a white layer": (layer((255, 255, 255)), "strokes"),
    "a translucent brush": (layer((255, 0, 0), 102), "strokes"),
    "a grey layer": (layer((90, 90, 90)).convert("LA"), "strokes"),
    "a palette layer": (palette_layer(), "strokes"),
    "a photograph with a hole": (hole(PICTURE), "hole"),
    "a re-encoded photograph with a hole": (hole(stored(PICTURE, "JPEG", quality=80).convert("RGB")), "hole"),
    "another photograph with a hole": (hole(photograph(3)), "hole"),
    "a grey photograph with a hole": (hole(photograph(3).convert("L")).convert("LA"), "hole"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_its_maker_meant(name, tmp_path):
    mask, words = UNDERSTOOD[name]
    kind = mask.format or ("TIFF" if mask.mode in ("CMYK", "F") else "PNG")
    (tmp_path / "m").write_bytes(encoded(mask, kind))
    read = open_mask(tmp_path / "m", picture=PICTURE)
    assert read.mode == "L" and np.array_equal(np.asarray(read) > 0, EDIT) and set(np.unique(read)) == {0, 255}
    (note,) = read.info["notes"]
    assert note.startswith("mask: ") and words in note


@pytest.mark.parametrize("name", [name for name in UNDERSTOOD if "hole" not in name])
def test_the_picture_is_not_needed_for_a_stroke(name):
    assert np.array_equal(np.asarray(understand(UNDERSTOOD[name][0])) > 0, EDIT)


def test_a_hole_in_a_picture_of_flat_colours_needs_the_picture():
    drawing = flat_picture()
    assert np.array_equal(np.asarray(understand(hole(drawing), picture=upright_rgb(drawing))) > 0, EDIT)
    with pytest.raises(ValueError, match="alpha .* inverted"):
        understand(hole(drawing))


def cut_out() -> Image.Image:
    """The object itself, the rest erased, as tools that remove backgrounds save it."""
    rgba = np.asarray(PICTURE.convert("RGBA")).copy()
    rgba[~EDIT] = 0
    return Image.fromarray(rgba)


def overlapping() -> Image.Image:
    rgba = np.asarray(layer((255, 0, 0), 90)).copy()
    rgba[BOX[1] : BOX[1] + 8, BOX[0] : BOX[2], 3] = 180
    return Image.fromarray(rgba)


def test_overlapping_translucent_strokes_mean_the_same():
    assert np.array_equal(np.asarray(understand(overlapping())), EDIT * 255)


def test_strokes_of_several_colours_are_all_edited():
    rgba = np.asarray(layer((255, 0, 0))).copy()
    rgba[20:33, 12:31, :3] = (0, 200, 40)
    assert np.array_equal(np.asarray(understand(Image.fromarray(rgba), picture=PICTURE)), EDIT * 255)


def test_white_and_black_on_a_transparent_layer_is_white_on_black():
    rgba = np.asarray(white("RGBA")).copy()
    rgba[:, 50:, 3] = 0
    assert np.array_equal(np.asarray(understand(Image.fromarray(rgba), picture=PICTURE)), EDIT * 255)


def map_of_colours() -> Image.Image:
    mask = Image.new("RGB", SIZE)
    for place, colour in enumerate(("#e01020", "#10e020", "#2010e0")):
        mask.paste(colour, (5 + 18 * place, 5, 15 + 18 * place, 30))
    return mask


def gradient() -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1)))


REFUSED = {
    "a photograph": (photograph(), "a picture, not a mask"),
    "a photograph as JPEG": (stored(photograph(), "JPEG"), "a picture, not a mask"),
    "a grey photograph": (photograph().convert("L"), "a picture, not a mask.*mask_soft true"),
    "a grey photograph as JPEG": (stored(photograph().convert("L"), "JPEG"), "a picture, not a mask"),
    "a photograph of 16 bits": (
        Image.fromarray(np.asarray(photograph().convert("L")).astype(np.uint16) * 256), "a picture, not a mask",
    ),
    "a drawing": (flat_picture(), "a map of 3 colours, not a mask.*mask_value"),
    "a drawing as palette": (flat_picture().quantize(8), "map of 3 colours"),
    "the cut-out object": (cut_out(), "alpha .* inverted"),
    "one colour all around a hole": (hole(Image.new("RGB", SIZE, "white")), "alpha .* inverted"),
    "numbers 3 and 7": (numbers((3, 7)), "brightest value is 7 .*255 = edit, .*mask_value .it has 0, 3, 7"),
    "zeros and ones": (numbers((1,)), "255 = edit.*mask_value .it has 0, 1"),
    "large numbers": (numbers((50, 100, 150, 200)), "a map of numbers, .*mask_value .it has 0, 50, 100, 150, 200"),
    "numbers of 16 bits": (numbers((300, 700), np.uint16), "255 = edit, or give mask_value"),
    "numbers as JPEG": (stored(numbers((3, 7)), "JPEG"), "255 = edit"),
    "a map of colours": (map_of_colours(), "a map of 4 colours.*mask_value one of .*#e01020"),
    "a palette of colours": (map_of_colours().quantize(4), "a map of 4 colours"),
    "a grey ramp": (gradient(), "a picture, not a mask.*mask_soft true"),
    "undefined values": (Image.fromarray(np.full(SIZE[::-1], np.nan, np.float32)), "undefined"),
    "negative values": (Image.fromarray(np.full(SIZE[::-1], -3, np.int32)), "negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_refused_in_one_line_that_names_the_file(name, tmp_path):
    mask, told = REFUSED[name]
    kind = mask.format or ("TIFF" if mask.mode in ("F", "I") else "PNG")
    path = tmp_path / "some mask"
    path.write_bytes(encoded(mask, kind))
    with pytest.raises(ValueError, match=told) as refused:
        open_mask(path, picture=PICTURE)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mask", "reading", "expected"),
    [
        (hole(PICTURE), {"mask_is": "inverted"}, EDIT),
        (hole(PICTURE), {"mask_is": "alpha"}, ~EDIT),
        (cut_out(), {"mask_is": "alpha"}, EDIT),
        (white(), {"mask_is": "inverted"}, ~EDIT),
        (white(), {"mask_is": "luma"}, EDIT),
        (layer((255, 255, 255)), {"mask_is": "luma"}, EDIT),
        (layer((0, 0, 0)), {"mask_is": "luma"}, EDIT & ~EDIT),
        (numbers((3, 7)), {"mask_value": "7"}, np.asarray(numbers((3, 7))) == 7),
        (numbers((3, 7)), {"mask_value": "3, 7"}, np.asarray(numbers((3, 7))) > 0),
        (numbers((1,)), {"mask_value": "1"}, np.asarray(numbers((1,))) == 1),
        (numbers((300, 700), np.uint16), {"mask_value": "700"}, np.asarray(numbers((300, 700), np.uint16)) == 700),
        (map_of_colours(), {"mask_value": "#10e020"}, (np.asarray(map_of_colours()) == (16, 224, 32)).all(-1)),
        (palette_layer(), {"mask_value": "1"}, EDIT),
    ],
)
def test_its_maker_can_say_what_it_means(mask, reading, expected):
    read = understand(mask, MaskReading(**reading), PICTURE)
    assert np.array_equal(np.asarray(read), expected * 255)


@pytest.mark.parametrize(
    ("mask", "reading", "told"),
    [
        (white(), {"mask_is": "alpha"}, "mask_is: alpha, but the mask has no transparent part"),
        (numbers((3, 7)), {"mask_value": "5"}, "mask_value: 5 does not occur in the mask; it has 0, 3, 7"),
        (map_of_colours(), {"mask_value": "#123456"}, "mask_value: #123456 does not occur"),
        (map_of_colours(), {"mask_value": "3"}, "mask_value: the mask has colours"),
        (white(), {"mask_is": "black"}, "mask_is: 'black' is unknown"),
        (white(), {"mask_value": "seven"}, "mask_value: 'seven' is no whole number"),
    ],
)
def test_a_wrong_reading_names_the_setting(mask, reading, told):
    with pytest.raises(ValueError, match=told):
        understand(mask, MaskReading(**reading), PICTURE)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_a_lossy_mask_is_cut_at_one_half_unless_it_may_be_soft(kind):
    options = {} if kind == "JPEG2000" else {"quality": 75}
    mask = stored(white("RGB").filter(ImageFilter.GaussianBlur(1)), kind, **options)
    read = understand(mask)
    assert set(np.unique(read)) == {0, 255} and "cut at one half" in read.info["notes"][0]
    assert (np.asarray(read) > 0)[EDIT].mean() > 0.97 and (np.asarray(read) > 0)[~EDIT].mean() < 0.01
    assert len(np.unique(understand(mask, MaskReading(mask_soft=True)))) > 20


def test_a_jpeg_mask_edits_exactly_what_was_drawn():
    mask = stored(white("RGB"), "JPEG", quality=75)
    assert (np.asarray(mask)[..., 0] > 0).sum() > EDIT.sum(), "the file itself has grey rings around the box"
    assert np.array_equal(np.asarray(understand(mask)), EDIT * 255)


@pytest.mark.parametrize("quality", [75, 90, 95])
def test_a_jpeg_mask_saved_as_png_edits_what_was_drawn(quality):
    again = Image.fromarray(np.asarray(stored(white("RGB"), "JPEG", quality=quality)))
    assert np.array_equal(np.asarray(understand(again)), EDIT * 255)


@pytest.mark.parametrize("radius", [0.7, 1, 2, 4])
def test_feathered_masks_are_no_jpeg(radius):
    soft = white().resize((240, 176)).filter(ImageFilter.GaussianBlur(radius))
    assert understand(soft).tobytes() == soft.tobytes()


def test_a_lossless_soft_edge_stays_unless_told_otherwise():
    soft = white().filter(ImageFilter.GaussianBlur(2))
    assert understand(soft).tobytes() == soft.tobytes()
    assert set(np.unique(understand(soft, MaskReading(mask_soft=False)))) == {0, 255}
    assert understand(gradient(), MaskReading(mask_soft=True)).tobytes() == gradient().tobytes()
    soft_layer = Image.merge("RGBA", [Image.new("L", SIZE, 200)] * 3 + [soft])
    assert understand(soft_layer).tobytes() == soft.tobytes()


@pytest.mark.parametrize(
    ("mask", "share", "said"),
    [
        (Image.new("L", SIZE), 0, "nothing"),
        (Image.new("RGBA", SIZE), 0, "without a stroke"),
        (Image.new("RGBA", SIZE, (255, 255, 255, 0)), 0, "without a stroke"),
        (Image.new("1", SIZE), 0, "nothing"),
        (Image.new("L", SIZE, 255), 1, "the whole picture"),
    ],
)
def test_an_empty_or_full_mask_is_accepted_and_said(mask, share, said):
    read = understand(mask, picture=PICTURE)
    assert (np.asarray(read) > 0).mean() == share and said in read.info["notes"][0]


def test_the_first_frame_of_an_animation_is_taken_and_said(tmp_path):
    white("P").save(tmp_path / "m.gif", save_all=True, append_images=[Image.new("P", SIZE)])
    read = open_mask(tmp_path / "m.gif")
    assert np.array_equal(np.asarray(read) > 0, EDIT) and "first frame" in read.info["notes"][1]


ORIENTATION = 0x0112
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""Value of the tag -> what turns the stored pixels upright."""


def saved(picture: Image.Image, path, orientation: int = 0):
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("square", [False, True])
def test_a_mask_is_turned_like_its_picture_or_a_warning_says_that_it_was_not(orientation, square, tmp_path):
    size = (44, 44) if square else SIZE
    source = open_picture(saved(photograph().resize(size), tmp_path / "p.png", orientation))
    raw = white().resize(size, Image.Resampling.NEAREST)
    upright = raw.transpose(TURNED[orientation])
    tagged = open_mask(saved(raw, tmp_path / "tagged.png", orientation), picture=source)
    assert tagged.tobytes() == upright.tobytes() and len(tagged.info["notes"]) == 1
    untagged = saved(raw, tmp_path / "untagged.png")
    if not square and orientation >= 5:
        with pytest.raises(ValueError, match="60x44 is the picture's size before its EXIF data turns it to 44x60"):
            open_mask(untagged, picture=source)
        drawn = open_mask(saved(upright, tmp_path / "drawn.png"), picture=source)
        assert drawn.tobytes() == upright.tobytes() and len(drawn.info["notes"]) == 1
    else:
        assert (
            "EXIF data turned the picture, but the mask has none"
            in open_mask(untagged, picture=source).info["notes"][1]
        )


def test_a_mask_of_another_size_names_both_sizes():
    with pytest.raises(ValueError, match="mask: 30x22, but the upright picture is 60x44"):
        understand(white().resize((30, 22)), picture=PICTURE)


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(0, 50), y=st.integers(0, 36), width=st.integers(2, 60), height=st.integers(2, 44),
    colour=st.tuples(*[st.integers(0, 255)] * 3), mode=st.sampled_from(["RGBA", "LA", "P"]),
)  # fmt: skip
def test_any_opaque_stroke_on_a_transparent_layer_is_edited(x, y, width, height, colour, mode):
    edit = np.zeros(SIZE[::-1], bool)
    edit[y : y + height, x : x + width] = True
    rim = np.concatenate([edit[0], edit[-1], edit[:, 0], edit[:, -1]])
    if rim.mean() >= 0.9:
        return
    rgba = np.zeros((*SIZE[::-1], 4), np.uint8)
    rgba[edit] = (*colour, 255)
    drawn = Image.fromarray(rgba)
    drawn = drawn.quantize(8) if mode == "P" else drawn.convert(mode)
    assert np.array_equal(np.asarray(understand(drawn, picture=PICTURE)), edit * 255)


def test_a_mask_in_python_that_the_reader_has_not_seen_is_refused():
    with pytest.raises(ValueError, match="mask: mode RGBA, but L is needed; mask_files.understand"):
        drawn_mask(EditRequest(PICTURE, "x", mask=hole(PICTURE)))
    read = understand(hole(PICTURE), picture=PICTURE)
    assert drawn_mask(EditRequest(PICTURE, "x", mask=read)).tobytes() == read.tobytes()
