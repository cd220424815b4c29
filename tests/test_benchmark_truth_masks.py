"""True masks drawn by people: erased regions are decoded before any conversion, bright regions from grey masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regionedit.evaluation.benchmarks.pictures import bright, erased
from tests.benchmark_fixtures import hole, picture

BOX = (2, 1, 5, 4)  # x0, y0, x1, y1 of 8x6 pixels
SIZE = (8, 6)
EDIT = np.zeros((6, 8), np.uint8)
EDIT[1:4, 2:5] = 255


def black_hole() -> Image.Image:
    mask = picture(1, SIZE)
    mask.paste((0, 0, 0), BOX)
    return mask


def opaque_with_black_hole() -> Image.Image:
    mask = black_hole().convert("RGBA")
    mask.putalpha(255)
    return mask


def palette() -> Image.Image:
    """Index 1 is transparent."""
    mask = Image.fromarray((EDIT == 255).astype(np.uint8)).convert("P")
    mask.info["transparency"] = 1
    return mask


MASKS = {
    "RGBA": hole(SIZE, BOX),
    "LA": hole(SIZE, BOX).convert("LA"),
    "RGB": black_hole(),
    "opaque RGBA": opaque_with_black_hole(),
    "L": Image.fromarray(EDIT),
    "1": Image.fromarray(EDIT).convert("1"),
    "P": palette(),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_erased_region_is_found_in_every_mode(name):
    found = erased(MASKS[name], SIZE)
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), EDIT)


def test_a_half_transparent_pixel_counts_as_erased():
    mask = hole(SIZE, BOX)
    mask.putpixel((7, 5), (200, 200, 200, 128))
    assert erased(mask, SIZE).getpixel((7, 5)) == 255


@pytest.mark.parametrize("factor", [2, 3, 0.5])
def test_a_mask_of_another_resolution_is_resized_to_the_picture_without_grey(factor):
    size = int(24 * factor), int(12 * factor)
    mask = hole((24, 12), (0, 0, 12, 12))
    expected = np.zeros(size[::-1], np.uint8)
    expected[:, : size[0] // 2] = 255
    assert np.array_equal(np.asarray(erased(mask, size)), expected)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (picture(1, SIZE), "it covers nothing"),
        (Image.new("RGB", SIZE), "it covers everything"),
        (Image.new("RGBA", SIZE, (9, 9, 9, 0)), "it covers everything"),
        (Image.new("L", SIZE), "it covers nothing"),
        (Image.new("L", SIZE, 1), "it covers nothing"),
        (Image.new("F", SIZE), "mode F"),
    ],
)
def test_an_uninformative_mask_is_refused(mask, reason):
    with pytest.raises(ValueError, match=reason):
        erased(mask, SIZE)


def test_a_bright_region_survives_jpeg_noise():
    values = np.where(EDIT == 255, 250, 6).astype(np.uint8)
    assert np.array_equal(np.asarray(bright(Image.fromarray(values).convert("RGB"), SIZE)), EDIT)


@settings(max_examples=60, deadline=None)
@given(edit=st.lists(st.booleans(), min_size=48, max_size=48), seed=st.integers(0, 99))
def test_any_hole_over_any_picture_is_found_in_alpha_and_in_black_alike(edit, seed):
    expected = np.array(edit).reshape(6, 8)
    with_alpha = picture(seed, SIZE).convert("RGBA")
    with_alpha.putalpha(Image.fromarray(np.where(expected, 0, 255).astype(np.uint8)))
    with_black = Image.fromarray(np.where(expected[..., None], 0, np.asarray(picture(seed, SIZE))).astype(np.uint8))
    for mask in (with_alpha, with_black):
        if expected.any() and not expected.all():
            assert np.array_equal(np.asarray(erased(mask, SIZE)) == 255, expected)
        else:
            with pytest.raises(ValueError, match="it covers"):
                erased(mask, SIZE)
