"""Mask operations, each against a computation by hand or another library, and in a request."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.ndimage import binary_fill_holes

from regionedit.config import RegionConfig
from regionedit.mask_operations import OPERATIONS, operated, operation_names
from regionedit.mask_sources import require_mask_source
from regionedit.records import EditRequest


def drawn(*rows: str) -> np.ndarray:
    """`#` is 1, `+` one half, anything else 0."""
    return np.array([[{"#": 1, "+": 0.5}.get(c, 0) for c in row] for row in rows], np.float32)


MASK = drawn("......#", ".###...", ".#.#...", ".##+...", ".......")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("", MASK),
        ("invert", 1 - MASK),
        ("fill", drawn("......#", ".###...", ".###...", ".##+...", ".......")),
        ("largest", drawn(".......", ".###...", ".#.#...", ".##+...", ".......")),
        ("box", drawn(".######", ".######", ".######", ".######", ".......")),
        ("hull", drawn("......#", ".#####.", ".####..", ".##+...", ".......")),
        ("largest, fill", drawn(".......", ".###...", ".###...", ".##+...", ".......")),
        ("largest,box", drawn(".......", ".###...", ".###...", ".###...", ".......")),
    ],
)
def test_by_hand(names, expected):
    assert np.array_equal(operated(MASK, operation_names(names)), expected)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks(name, value):
    mask = np.full((5, 7), value, np.float32)
    assert np.array_equal(operated(mask, [name]), 1 - mask if name == "invert" else mask)


masks = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 0.5, 1])
)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_properties(mask):
    filled, hull, box, largest = (operated(mask, [name]) for name in ("fill", "hull", "box", "largest"))
    assert np.array_equal(filled > 0, binary_fill_holes(mask > 0))
    assert ((largest <= mask) & (mask <= filled) & (filled <= hull)).all() and ((hull > 0) <= (box > 0)).all()
    for name in ("fill", "hull", "box", "largest"):
        once = operated(mask, [name])
        assert np.array_equal(operated(once, [name]), once) and once.dtype == mask.dtype
    assert np.array_equal(hull > 0, _in_hull(mask > 0))


def _in_hull(mask: np.ndarray) -> np.ndarray:
    """By the half-planes of every pair of pixels that has all the others on one side."""
    rows, columns = np.nonzero(mask)
    inside = np.zeros(mask.shape, bool)
    if len(rows):
        inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    ends = list(zip(columns, rows, strict=True))
    for x0, y0 in ends:
        for x1, y1 in ends:
            side = (x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0)
            if (side >= 0).all():
                inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
    return inside


@pytest.mark.parametrize("given_names", ["widen", ["fill", 3], "fill;box"])
def test_an_unknown_operation_is_refused(given_names):
    with pytest.raises(ValueError, match="mask_operations: .* is unknown; there are: invert, fill, largest, hull, box"):
        EditRequest(None, "x", mask_operations=given_names)


def test_each_request_has_its_own_and_they_come_before_grow():
    picture = Image.new("RGB", (7, 5))
    mask = Image.fromarray((MASK * 255).round().astype(np.uint8))
    requests = [EditRequest(picture, "x", mask=mask, mask_operations=names) for names in ("", "box", "largest, fill")]
    finder = require_mask_source("drawn").load(RegionConfig(), None, None)
    region = finder.find(torch.zeros(3, 3, 5, 7), requests, [None] * 3)
    for found, request in zip(region.mask_B1HW[:, 0], requests, strict=True):
        exact = operated(np.asarray(mask, np.float32) / 255, request.mask_operations)
        assert np.allclose(found.numpy(), exact, atol=1e-6)
    grown = finder.using(RegionConfig(grow=1)).find(torch.zeros(3, 3, 5, 7), requests, [None] * 3)
    assert grown.mask_B1HW[1].all() and not grown.mask_B1HW[2].all()


def test_the_parts_of_several_instructions_follow_the_mask():
    from regionedit.mask_sources.finder import _operated
    from regionedit.records import Region

    parts = torch.from_numpy(np.stack([drawn("#..", "...", "..."), drawn("...", "...", "..#")]))[None]
    whole = parts.amax(1, keepdim=True)
    request = EditRequest(Image.new("RGB", (3, 3)), ("x", "y"), mask_operations="box")
    region = _operated(Region(whole, whole, parts), [request])
    assert region.mask_B1HW.all() and (region.per_instruction_BKHW.sum(1) == 1).all()


def test_the_page_has_a_button_for_each():
    from regionedit.web.edit_layout import OPERATION_LABELS

    assert list(OPERATION_LABELS) == list(OPERATIONS)
