"""`crop.sample_grow`: the generator repaints a wider mask than the region that is blended in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from regionedit.config import CropConfig, RegionConfig
from regionedit.editor import Editor
from regionedit.records import Captions, EditRequest
from regionedit.results import changed_outside
from tests.stub_generators import StubGenerator, stub_editor

SIZE = (90, 70)
BOX = (30, 25, 50, 40)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8))


class Recorder(StubGenerator):
    """Paints black where its mask is, and white elsewhere; keeps the regions that it was given."""

    def __init__(self, size: int = 0):
        super().__init__(None, size)
        self.regions, self.images = [], []

    def repaint(self, images_BCHW, region, requests, captions, seeds, watch=None):
        self.regions.append(region)
        self.images.append(images_BCHW)
        return (1 - region.mask_B1HW).expand(-1, 3, -1, -1)


def editor(crop: CropConfig, size: int = 0, **region) -> tuple[Editor, Recorder]:
    made, recorder = stub_editor(None, crop=crop, region=RegionConfig(**region)), Recorder(size)
    made.models.stub = recorder
    return made, recorder


def request(box=BOX, picture=PICTURE, instructions="x") -> EditRequest:
    return EditRequest(picture, instructions, captions=Captions("a", "b"), box=box)


def box_of(mask_HW: torch.Tensor) -> tuple[int, ...]:
    return Image.fromarray((mask_HW > 0).numpy()).getbbox()


@pytest.mark.parametrize("wider", [0, 1, 7, 200])
@pytest.mark.parametrize("feather", [0.0, 3.0])
def test_the_generator_gets_the_wider_mask_and_only_the_region_is_blended_in(wider, feather):
    made, recorder = editor(CropConfig(sample_grow=wider), feather=feather)
    result = made.edit(request())
    ((sampled_1HW,),) = (region.mask_B1HW for region in recorder.regions)
    x0, y0, x1, y1 = BOX
    width, height = SIZE
    assert box_of(sampled_1HW[0]) == (
        max(x0 - wider, 0),
        max(y0 - wider, 0),
        min(x1 + wider, width),
        min(y1 + wider, height),
    )
    assert set(sampled_1HW.unique().tolist()) <= {0.0, 1.0}, "in-painters get hard masks"
    before, after = np.asarray(PICTURE), np.asarray(result.image)
    outside = np.ones(before.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(before[outside], after[outside])
    assert result.mask.getbbox() == BOX and changed_outside(PICTURE, result.image, result.mask) == 0
    assert not after[np.asarray(result.mask) == 255].any()


def test_a_window_holds_the_wider_mask_and_its_surroundings():
    """20x15 px grown by 10 are 40x35; half as much again around them."""
    made, recorder = editor(CropConfig(context=1.5, sample_grow=10), size=30)
    result = made.edit(request())
    (region,) = recorder.regions
    assert recorder.images[0].shape[-2:] == (30, 30)  # 60 px, scaled down
    assert box_of(region.mask_B1HW[0, 0]) == (5, 6, 25, 24)
    assert changed_outside(PICTURE, result.image, result.mask) == 0 and result.mask.getbbox() == BOX


def test_parts_whose_wider_masks_meet_share_a_window():
    mask = Image.new("L", SIZE)
    for box in ((10, 10, 14, 14), (40, 10, 44, 14)):
        mask.paste(255, box)
    asked = replace(request(None), mask=mask)
    counts = []
    for wider in (0, 14):
        made, recorder = editor(CropConfig(context=1, sample_grow=wider), size=8)
        assert changed_outside(PICTURE, made.edit(asked).image, mask) == 0
        counts.append(sum(len(images) for images in recorder.images))
    assert counts == [2, 1]


def test_the_parts_of_several_instructions_are_widened_with_it():
    from regionedit.crop_and_stitch import _widened
    from regionedit.records import Region

    parts = torch.zeros(1, 2, 20, 20)
    parts[0, 0, 5:10, 5:10], parts[0, 1, 5:10, 10:15] = 1, 1
    mask = parts.amax(1, keepdim=True)
    wide = _widened(Region(mask, mask, parts), 3)
    assert wide.mask_B1HW.sum() == 11 * 16
    assert [part.sum() for part in wide.per_instruction_BKHW[0]] == [11 * 8, 11 * 8]
    assert torch.equal(wide.probability_B1HW, mask)
