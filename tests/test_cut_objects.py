"""A new object that the mask cuts off is noticed, and painted once more in a larger region."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from regionedit.config import RegionConfig
from regionedit.cut_objects import Border, border_of
from regionedit.images import to_tensor
from regionedit.records import Captions, EditRequest
from regionedit.results import changed_outside
from tests.stub_generators import stub_editor

SIZE = (60, 44)
SOURCE = Image.new("RGB", SIZE, (90, 140, 90))


ROOMY, TIGHT, LEFT_HALF = (14, 8, 46, 38), (24, 16, 36, 28), (0, 0, 30, 44)


def with_disc() -> Image.Image:
    picture = SOURCE.copy()
    ImageDraw.Draw(picture).ellipse((20, 12, 39, 31), fill=(200, 30, 40))
    return picture


def inside(box) -> torch.Tensor:
    mask = torch.zeros(SIZE[::-1], dtype=torch.bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


PAINTED, PLAIN = to_tensor([with_disc()])[0], to_tensor([SOURCE])[0]


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        (ROOMY, False),
        (TIGHT, True),
        (LEFT_HALF, True),
        ((0, 0, 60, 44), False),
        ((30, 0, 60, 30), True),
        ((50, 2, 58, 9), False),
    ],
)
def test_what_reaches_the_border_is_noticed(box, cut):
    assert border_of(PAINTED, PLAIN, inside(box)).is_cut == cut


def test_the_border_by_hand():
    source, painted = torch.zeros(3, 4, 6), torch.zeros(3, 4, 6)
    painted[:, 1, 2] = 1  # one of the two pixels of the region; it has three of the six pairs
    region = torch.zeros(4, 6, dtype=torch.bool)
    region[1, 2:4] = True
    assert border_of(painted, source, region) == (6, 3, 1)
    assert border_of(painted, source, torch.zeros_like(region)) == (0, 0, 0)
    assert border_of(painted * 0.1, source, region) == (6, 0, 0), "a generator's small errors are no edge"
    painted[:, 1, 3] = 1
    assert border_of(painted, source, region) == (6, 6, 2)


@pytest.mark.parametrize(
    ("border", "cut"),
    [
        (Border(100, 5, 2), False), (Border(100, 6, 2), True), (Border(100, 3, 3), True), (Border(0, 0, 0), False),
        (Border(2000, 19, 19), False), (Border(2000, 20, 20), True),
    ],
)  # fmt: skip
def test_what_counts_as_cut(border, cut):
    assert border.is_cut == cut


def test_an_edge_that_the_source_has_there_is_right():
    """A red disc becomes blue, under a mask that fits it."""
    blue = PAINTED[[2, 1, 0]]
    disc = (PAINTED - PLAIN).abs().amax(0) > 0
    assert border_of(blue, PAINTED, disc).abrupt == 0 < border_of(blue, PLAIN, disc).abrupt


WHOLE, TIGHT_BOX, NO_RIGHT, NO_TOP = (4, 2, 56, 42), (20, 12, 40, 32), (4, 2, 40, 42), (4, 10, 56, 42)


def shape(name: str, width: int) -> Image.Image:
    picture = SOURCE.copy()
    draw, red = ImageDraw.Draw(picture), (200, 30, 40)
    match name:
        case "bar":
            draw.rectangle((12, 20, 47, 19 + width), fill=red)
        case "upright bar":
            draw.rectangle((30, 5, 29 + width, 38), fill=red)
        case "tilted bar":
            draw.line((14, 36, 46, 8), fill=red, width=width)
        case "ring":
            draw.ellipse((16, 8, 43, 35), outline=red, width=width)
        case "triangle":
            draw.polygon([(30, 6), (14, 36), (46, 36)], fill=red)
    return picture


CUT = {
    "bar": (TIGHT_BOX, NO_RIGHT),
    "upright bar": (TIGHT_BOX, NO_TOP),
    "tilted bar": (TIGHT_BOX, NO_RIGHT, NO_TOP),
    "ring": (TIGHT_BOX, NO_RIGHT, NO_TOP),
    "triangle": (TIGHT_BOX, NO_RIGHT, NO_TOP),
}


@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_cut_bar_ring_or_triangle_is_noticed_and_a_whole_one_is_not(name, width, scale, noise):
    """However small the part of the border that it crosses; also in a larger picture, and with a generator's noise."""
    size = [side * scale for side in SIZE]
    painted, plain = (to_tensor([one.resize(size, Image.Resampling.BOX)])[0] for one in (shape(name, width), SOURCE))
    painted = painted + noise * torch.randn(painted.shape, generator=torch.Generator().manual_seed(0))
    for box in (WHOLE, *CUT[name]):
        region = inside(box).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        assert border_of(painted, plain, region).is_cut == (box != WHOLE), box


def test_a_region_with_a_hole_cuts_what_fills_the_hole():
    around = inside(ROOMY) & ~inside((28, 20, 32, 24))
    assert border_of(PAINTED, PLAIN, around).is_cut
    ring = to_tensor([shape("ring", 3)])[0]
    assert not border_of(ring, PLAIN, inside(WHOLE) & ~inside((28, 20, 32, 24))).is_cut, "a ring leaves it free"


def request(box, **more) -> EditRequest:
    return EditRequest(SOURCE, "add a red disc", captions=Captions("a meadow", "a red disc"), box=box, **more)


def editor(pixels: int, calls: list | None = None, **region):
    def paint(images):
        if calls is not None:
            calls.append(len(images))
        return PAINTED.expand(len(images), -1, -1, -1)

    return stub_editor(paint, region=RegionConfig(grow_if_cut=pixels, **region))


@pytest.mark.parametrize(("pixels", "enough"), [(6, True), (2, False)])
def test_a_cut_object_is_painted_again_in_a_larger_region(pixels, enough):
    result = editor(pixels).edit(request(TIGHT))
    x0, y0, x1, y1 = TIGHT
    assert result.mask.getbbox() == (x0 - pixels, y0 - pixels, x1 + pixels, y1 + pixels)
    assert (np.asarray(result.image) == np.asarray(with_disc())).all() == enough
    assert changed_outside(SOURCE, result.image, result.mask) == 0
    assert f"painted again, grown by {pixels} px" in result.record["note"]
    assert ("but it still does" in result.note) == (not enough)


def test_a_soft_edge_stays_soft():
    mask = editor(6, feather=2.0).edit(request(TIGHT)).mask
    assert mask.getbbox() == (18, 10, 42, 34) and 0 < mask.getpixel((18, 20)) < 255 == mask.getpixel((30, 20))


def test_only_what_was_cut_is_painted_again_and_off_nothing_is_examined(monkeypatch):
    calls = []
    roomy, tight = editor(6, calls).edit_batch([request(ROOMY, id="a"), request(TIGHT, id="b")])
    assert calls == [2, 1] and roomy.mask.getbbox() == ROOMY and "again" not in roomy.note and "again" in tight.note
    monkeypatch.setattr("regionedit.editor.cut_off", None)  # a call would fail
    off = editor(0)
    assert off.edit(request(TIGHT)).mask.getbbox() == TIGHT
    assert off.edit(request(ROOMY)).image.tobytes() == roomy.image.tobytes()


def test_several_instructions_share_the_larger_region():
    asked = replace(request(TIGHT), instructions=("add a red disc", "make it round"))
    result = editor(6).edit(asked)
    assert result.mask.getbbox() == (18, 10, 42, 34)
