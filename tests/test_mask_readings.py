"""How a mask file is read: what its maker says it means, soft edges, orientation and size."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from regionedit.images import open_picture
from regionedit.mask_files import MaskReading, open_mask, understand
from regionedit.mask_sources.drawn import drawn_mask
from regionedit.picture_files import encode
from regionedit.picture_metadata import Metadata
from regionedit.records import EditRequest
from tests.drawn_masks import (
    EDIT,
    PICTURE,
    SIZE,
    cut_out,
    gradient,
    grey_palette,
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
        (grey_palette(), {"mask_value": "7"}, EDIT),
        (grey_palette(), {"mask_value": "128"}, EDIT),
        (layer((0, 0, 0)), {"mask_value": "#000000"}, EDIT),
        (layer((0, 0, 0)), {"mask_value": "0"}, EDIT),
        (Image.fromarray(np.where(EDIT, 1, 1.6).astype(np.float32)), {"mask_value": "1"}, EDIT),
    ],
)
def test_its_maker_can_say_what_it_means(mask, reading, expected):
    read = understand(mask, MaskReading(**reading), PICTURE)
    assert np.array_equal(np.asarray(read), expected * 255)


@pytest.mark.parametrize(
    ("mask", "reading", "message"),
    [
        (white(), {"mask_is": "alpha"}, "mask_is: alpha, but the mask has no transparent part"),
        (numbers((3, 7)), {"mask_value": "5"}, "mask_value: 5 does not occur in the mask; it has 0, 3, 7"),
        (map_of_colours(), {"mask_value": "#123456"}, "mask_value: #123456 does not occur"),
        (map_of_colours(), {"mask_value": "3"}, "mask_value: the mask has colours"),
        (white(), {"mask_is": "black"}, "mask_is: 'black' is unknown"),
        (white(), {"mask_value": "seven"}, "mask_value: 'seven' is no whole number"),
    ],
)
def test_a_wrong_reading_names_the_setting(mask, reading, message):
    with pytest.raises(ValueError, match=message):
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
@pytest.mark.parametrize(
    ("drawn", "options"),
    [(white("RGB"), {}), (on_black("red"), {"subsampling": 0}), (on_black("#00ff00"), {"subsampling": 0})],
    ids=["white", "red", "green"],
)
def test_a_jpeg_mask_saved_as_png_edits_what_was_drawn(quality, drawn, options):
    again = Image.fromarray(np.asarray(stored(drawn, "JPEG", quality=quality, **options)))
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
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_is_turned_like_its_picture_or_a_warning_says_that_it_was_not(orientation, square, suffix, tmp_path):
    size = (44, 44) if square else SIZE
    source = open_picture(saved(photograph().resize(size), tmp_path / f"p.{suffix}", orientation))
    raw = white().resize(size, Image.Resampling.NEAREST)
    upright = raw.transpose(TURNED[orientation])
    tagged = open_mask(saved(raw, tmp_path / f"tagged.{suffix}", orientation), picture=source)
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


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_picture_that_its_file_calls_upright_needs_no_warning(suffix, tmp_path):
    source = open_picture(saved(photograph(), tmp_path / f"p.{suffix}", 1))
    assert open_mask(saved(white(), tmp_path / "m.png"), picture=source).info["notes"] == ["mask: white is edited"]
    with pytest.raises(ValueError, match="mask: 44x60, but the upright picture is 60x44"):
        open_mask(saved(white().transpose(TURNED[6]), tmp_path / "m.png"), picture=source)


def test_numbers_are_not_read_from_the_upper_half_of_deep_colours(tmp_path):
    (tmp_path / "m.png").write_bytes(encode(np.dstack([EDIT * np.uint16(800)] * 3), Metadata()))
    with pytest.raises(ValueError, match="mask_value: .* more than 8 bits; save it as grey"):
        open_mask(tmp_path / "m.png", MaskReading(mask_value="3"))


def test_a_mask_of_another_size_names_both_sizes():
    with pytest.raises(ValueError, match="mask: 30x22, but the upright picture is 60x44"):
        understand(white().resize((30, 22)), picture=PICTURE)


def test_a_mask_in_python_that_the_reader_has_not_seen_is_refused():
    with pytest.raises(ValueError, match="mask: mode RGBA, but L is needed; mask_files.understand"):
        drawn_mask(EditRequest(PICTURE, "x", mask=hole(PICTURE)))
    read = understand(hole(PICTURE), picture=PICTURE)
    assert drawn_mask(EditRequest(PICTURE, "x", mask=read)).tobytes() == read.tobytes()
