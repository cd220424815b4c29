"""Masks that are worse in known ways: each alteration against a hand-made case, and one small run."""

import known_edits
import mask_quality
import pytest
import torch

from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig, StableDiffusionConfig
from regionedit.generators import load_generator


@pytest.fixture
def known():
    return known_edits.known_edits("validation", 0, range(3), ("remove", "recolour"))


def square(top: int, left: int, side: int, count: int = 1) -> torch.Tensor:
    mask_B1HW = torch.zeros(count, 1, 64, 64)
    mask_B1HW[:, :, top : top + side, left : left + side] = 1
    return mask_B1HW


def test_shifts_go_right_down_left_and_up_and_do_not_wrap():
    moved = mask_quality.shift(square(0, 20, 10, 4), 4)
    assert torch.equal(moved[0], square(0, 24, 10)[0]) and torch.equal(moved[1], square(4, 20, 10)[0])
    assert torch.equal(moved[2], square(0, 16, 10)[0])
    assert moved[3].sum() == 6 * 10 and moved[3, :, :6, 20:30].all()


def test_true_cells_are_those_that_are_covered_by_more_than_a_quarter():
    three = square(8, 8, 16) - square(16, 16, 8)  # 12 px cover two neighbours by half, the last cell by just a quarter
    assert torch.equal(mask_quality.cells(square(8, 8, 12)), three)
    assert torch.equal(mask_quality.cells(square(8, 8, 13)), square(8, 8, 16))


def test_one_small_run(known, tiny_inpaint_dir):
    generator = load_generator(StableDiffusionConfig(path=str(tiny_inpaint_dir), size=32, num_inference_steps=1))
    names = ("truth", "everything", "eroded 2 px", "eroded 4 px")
    altered = {name: mask_quality.ALTERATIONS[name](known.truth_B1HW) for name in names}
    found = mask_quality.measure(generator, known, altered)
    assert set(found) == set(altered)
    assert found["truth"]["mask_iou"] == 1 and found["truth"]["change_outside_truth"] == 0
    assert found["everything"]["area"] == 1 and found["everything"]["change_outside_truth"] > 0
    assert found["eroded 4 px"]["mask_iou"] < found["eroded 2 px"]["mask_iou"] < 1


@pytest.mark.microworld
def test_a_learned_region_grows_with_its_dilation(known):
    found = mask_quality.learned(load_config(EvaluateConfig, "configs/evaluate_regions.yaml", []), known)
    areas = [float(mask_B1HW.mean()) for mask_B1HW in found.values()]
    assert list(found)[:2] == ["learned", "learned, 1 px wider"] and areas == sorted(set(areas))
