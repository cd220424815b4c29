"""What every mask gets at the end: a request's operations, growth, feather, and the fallback for an empty region."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.ndimage import binary_fill_holes

from regionedit.config import RegionConfig
from regionedit.editor import Editor
from regionedit.mask_operations import OPERATIONS, operated, operation_names
from regionedit.mask_sources import MaskSource, require_mask_source
from regionedit.mask_sources.algebra import parse
from regionedit.mask_sources.finder import LARGE_NOTE, NOTHING_NOTE, WHOLE_PICTURE_NOTE, Plan, finish
from regionedit.masks import grow
from regionedit.records import EditRequest, Region
from tests.segmenters import must_not_load

PICTURE = Image.new("RGB", (24, 24))


def square(top=8, left=8, side=8) -> torch.Tensor:
    mask_B1HW = torch.zeros(1, 1, 24, 24)
    mask_B1HW[..., top : top + side, left : left + side] = 1
    return mask_B1HW


def requests(seed: int = 0) -> list[EditRequest]:
    return [EditRequest(PICTURE, "x", seed=seed, id="a")]


def finished(**config) -> torch.Tensor:
    return finish(Region(square(), square()), RegionConfig(**config)).mask_B1HW


def test_masks_grow_shrink_and_move():
    assert torch.equal(finished(), square())
    assert torch.equal(finished(grow=2), square(6, 6, 12)) and torch.equal(finished(grow=-2), square(10, 10, 4))
    assert torch.equal(grow(torch.ones(1, 1, 5, 5), -2), torch.ones(1, 1, 5, 5))  # the picture's border does not shrink
    soft = finished(grow=2, feather=2.0)
    assert ((soft > 0) == (square(6, 6, 12) > 0)).all() and (soft < 1).any() and soft.max() == 1


def test_parts_follow_the_mask():
    left, right = square(), square()
    left[..., 12:], right[..., :12] = 0, 0
    region = Region(square(), square(), torch.cat([left, right], 1))
    for config in (RegionConfig(grow=3), RegionConfig(grow=1, feather=2.0)):
        after = finish(region, config)
        assert torch.equal(after.per_instruction_BKHW.amax(1, keepdim=True), after.mask_B1HW)
        assert ((after.per_instruction_BKHW > 0).sum(1) <= 1).all()
        first, second = after.per_instruction_BKHW[0].flatten(1).sum(1).tolist()
        assert first == pytest.approx(second, rel=0.4)


def test_an_editor_can_load_a_source_without_post_processing(tiny_edit_config):
    config = replace(tiny_edit_config, region=RegionConfig(grow=2))
    models = Editor.from_config(config).models
    drawn, images_BCHW = [EditRequest(PICTURE, "x", box=(8, 8, 16, 16))], torch.zeros(1, 3, 24, 24)
    for finder, wanted in (
        (models.mask_source("drawn", config), square(6, 6, 12)),
        (models.mask_source("drawn", replace(config, region=RegionConfig())), square()),
    ):
        region = finder.find(images_BCHW, drawn, [None])
        assert torch.equal(region.mask_B1HW, wanted) and torch.equal(region.probability_B1HW, square())


class Blind(MaskSource):
    """A mask source that finds the square in the first picture and nothing in the others."""

    @classmethod
    def load(cls, config, encoders, generator):
        return cls()

    def find(self, images_BCHW, requests, captions):
        mask_B1HW = torch.zeros(len(images_BCHW), 1, 24, 24)
        mask_B1HW[0] = square()[0]
        return Region(mask_B1HW, mask_B1HW.clone(), notes=("a note", *[""] * (len(images_BCHW) - 1)))


class Pointed(Blind):
    """The same, as a mask source for regions marked by a person."""

    refinable = False


@pytest.mark.parametrize(("kind", "share"), [(Blind, 1), (Pointed, 64 / 576)])
def test_where_most_of_the_picture_is_meant_the_whole_picture_can_be_edited(kind, share):
    for above, expected in ((64 / 576 - 0.01, share), (64 / 576 + 0.01, 64 / 576)):
        settings = RegionConfig(whole_above=above)
        find = Plan(parse("x"), {"x": kind}).load(settings, must_not_load, must_not_load).find
        region = find(torch.zeros(2, 3, 24, 24), requests() * 2, [None] * 2)
        assert region.mask_B1HW[0].mean().item() == pytest.approx(expected) and not region.mask_B1HW[1].any()
        assert (LARGE_NOTE in region.notes[0]) == (expected == 1) and region.notes[0].startswith("a note")


@pytest.mark.parametrize(("below", "note"), [(0.05, WHOLE_PICTURE_NOTE), (0.15, NOTHING_NOTE)])
def test_where_nothing_is_to_be_done_nothing_is_edited(below, note):
    class Unsure(Blind):
        def find(self, images_BCHW, requests, captions):
            region = super().find(images_BCHW, requests, captions)
            return replace(region, probability_B1HW=torch.full_like(region.mask_B1HW, 0.1))

    settings = RegionConfig(if_empty="everything", nothing_below=below)
    find = Plan(parse("x"), {"x": Unsure}).load(settings, must_not_load, must_not_load).find
    region = find(torch.zeros(2, 3, 24, 24), requests() * 2, [None] * 2)
    assert region.notes == ("a note", note), "a region that was found stays, however low P is"
    assert region.mask_B1HW[0].any() and bool(region.mask_B1HW[1].all()) == (note == WHOLE_PICTURE_NOTE)


@pytest.mark.parametrize(("kind", "shares"), [(Blind, [64 / 576, 1, 1]), (Pointed, [64 / 576, 0, 0])])
def test_where_nothing_is_found_the_whole_picture_can_be_edited(kind, shares):
    find = Plan(parse("x"), {"x": kind}).load(RegionConfig(if_empty="everything"), must_not_load, must_not_load).find
    region = find(torch.zeros(3, 3, 24, 24), requests() * 3, [None] * 3)
    assert torch.allclose(region.mask_B1HW.flatten(1).mean(1), torch.tensor(shares))
    assert region.notes == ("a note", *[WHOLE_PICTURE_NOTE if share == 1 else "" for share in shares[1:]])
    assert torch.equal(region.probability_B1HW[1:], torch.zeros(2, 1, 24, 24))
    kept = (
        Plan(parse("x"), {"x": kind})
        .load(RegionConfig(), must_not_load, must_not_load)
        .find(torch.zeros(3, 3, 24, 24), [], [])
    )
    assert not kept.mask_B1HW[1:].any()


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
