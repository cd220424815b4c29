"""A mask file means what its maker meant: kinds of files, their modes and formats, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regionedit.images import upright_rgb
from regionedit.mask_files import open_mask, understand
from tests.drawn_masks import (
    BOX,
    EDIT,
    PICTURE,
    SIZE,
    cut_out,
    encoded,
    flat_picture,
    gradient,
    hole,
    layer,
    map_of_colours,
    numbers,
    on_black,
    palette_layer,
    photograph,
    stored,
    white,
)

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
    "a black layer of 16 bits": (
        stored(Image.fromarray(np.where(EDIT, 0, 65535).astype(np.uint16)), transparency=65535), "strokes",
    ),
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


def eighty_numbers() -> Image.Image:
    """Small objects, most of the picture free, as cells are numbered."""
    cells = np.zeros((14, 20), np.uint8)
    cells.flat[: 3 * 80 : 3] = 3 * np.arange(1, 81)
    return Image.fromarray(np.pad(np.kron(cells, np.ones((3, 3), np.uint8)), ((0, 2), (0, 0))))


def with_spot(mask: Image.Image, colour) -> Image.Image:
    """The mask with a second object that covers 0.6 % of it."""
    mask = mask.copy()
    mask.paste(colour, (50, 30, 54, 34))
    return mask


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
    "numbers below 255": (numbers((1, 255)), "map of numbers.* 0, 1, 255"),
    "numbers that 8 bits make equal": (numbers((33001, 33002), np.uint16), "map of numbers.* 0, 33001, 33002"),
    "numbers that 8 bits make others": (numbers((26001, 33001), np.uint16), "map of numbers.* 0, 26001, 33001"),
    "eighty numbers": (eighty_numbers(), "map of numbers.* 0, 3, 6"),
    "numbers as JPEG": (stored(numbers((3, 7)), "JPEG"), "255 = edit"),
    "a map of colours": (map_of_colours(), "a map of 4 colours.*mask_value one of .*#e01020"),
    "a colour and a small other one": (
        with_spot(on_black("red"), (0, 200, 0)), "a map of 3 colours.*mask_value one of #000000, #ff0000, #00c800",
    ),
    "a palette of colours": (map_of_colours().quantize(4), "a map of 4 colours"),
    "a grey ramp": (gradient(), "a picture, not a mask.*mask_soft true"),
    "undefined values": (Image.fromarray(np.full(SIZE[::-1], np.nan, np.float32)), "undefined"),
    "negative values": (Image.fromarray(np.full(SIZE[::-1], -3, np.int32)), "negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_refused_in_one_line_that_names_the_file(name, tmp_path):
    mask, message = REFUSED[name]
    kind = mask.format or ("TIFF" if mask.mode in ("F", "I") else "PNG")
    path = tmp_path / "some mask"
    path.write_bytes(encoded(mask, kind))
    with pytest.raises(ValueError, match=message) as refused:
        open_mask(path, picture=PICTURE)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.parametrize("colour", ["red", "#000080", "lime"])
@pytest.mark.parametrize("side", [1, 3])
def test_a_small_stroke_of_one_colour_is_edited(colour, side):
    mask, expected = Image.new("RGB", SIZE), np.zeros(SIZE[::-1], np.uint8)
    mask.paste(colour, (5, 6, 5 + side, 6 + side))
    expected[6 : 6 + side, 5 : 5 + side] = 255
    assert np.array_equal(np.asarray(understand(mask, picture=PICTURE)), expected)


def test_small_areas_of_grey_are_edited_in_part_and_counted():
    read = understand(with_spot(white(), 128))
    assert read.info["notes"] == ["mask: white is edited, 16 pixels in part"]
    assert (np.asarray(read) == 128).sum() == 16


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
