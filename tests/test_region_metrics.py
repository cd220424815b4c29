"""A region against masks and against the pixels that changed, counted by hand; cases by the area of their mask."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionedit.evaluation import METRICS
from regionedit.evaluation.metrics import Settings
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import changed_pixels
from regionedit.evaluation.scoring import AREA, area_of, groups_of, score_cases
from regionedit.records import EditCase
from tests.metric_cases import NAN, case, flat, mask, paint, plain, value


def region(box: tuple[int, int, int, int], probability: float = 0.9) -> np.ndarray:
    return np.asarray(mask(box), np.float32) / 255 * probability


def test_a_region_against_the_human_mask_in_pixels():
    """Region 4 x 4, mask 4 x 6, of which 4 x 3 agree: union 16 + 24 - 12."""
    outcome = Outcome(case(flat(0), truth_mask=mask((0, 1, 4, 7))), None, None, region((0, 0, 4, 4)))
    found = [value(plain(f"region_{name}_pixel"), outcome) for name in ("iou", "precision", "recall")]
    assert found == pytest.approx([12 / 28, 12 / 16, 12 / 24])
    higher = Settings(threshold=0.95)
    assert value(METRICS["region_iou_pixel"].metric(higher), outcome) == 0
    assert math.isnan(value(METRICS["region_precision_pixel"].metric(higher), outcome))
    mask_alone = replace(outcome, probability=None, mask=region((0, 0, 4, 4), 1))
    assert value(plain("region_iou_pixel"), mask_alone) == pytest.approx(12 / 28)
    refined = replace(outcome, mask=region((0, 1, 4, 7), 1))  # the mask is tight where the map it was made from is not
    assert value(plain("mask_iou"), refined) == 1 and value(plain("region_iou_pixel"), refined) < 0.5
    assert math.isnan(value(plain("mask_iou"), outcome))


def test_a_region_against_the_pixels_that_changed():
    """The target differs in 4 x 4 pixels and in a speck of codec noise, which does not count."""
    source = flat(100)
    target = paint(paint(source, (2, 2, 6, 6), 150), (7, 0, 8, 1), 255)
    outcome = Outcome(case(source, target), None, None, region((2, 2, 6, 4)))
    found = [value(plain(f"region_{name}_changed"), outcome) for name in ("iou", "precision", "recall")]
    assert found == pytest.approx([8 / 16, 1, 8 / 16])


def test_a_target_equal_to_the_source_has_no_changed_region():
    outcome = Outcome(case(flat(9), flat(9)), None, None, region((2, 2, 6, 4)))
    found = [value(plain(f"region_{name}_changed"), outcome) for name in ("iou", "precision", "recall")]
    assert found == pytest.approx([NAN] * 3, nan_ok=True)


def test_changed_pixels_have_a_threshold_an_opening_and_the_sources_size():
    """0.1 lies between 25 and 26 levels; the mean over the channels decides, not one of them."""
    source = flat(100)
    assert not changed_pixels(source, flat(125)).any()
    assert changed_pixels(source, flat(126)).all()
    assert not changed_pixels(source, Image.new("RGB", (8, 8), (176, 100, 100))).any()
    assert changed_pixels(source, flat(200, 16)).shape == (8, 8)
    assert not changed_pixels(source, paint(source, (0, 4, 8, 6), 200)).any()
    assert changed_pixels(source, paint(source, (0, 4, 8, 7), 200)).sum() == 24


def test_change_iou_compares_what_was_really_changed_with_the_mask():
    """Changed by 0.2 in 4 x 4 and by 0.05 around; mask 4 x 6, of which 4 x 3 were changed."""
    made = case(flat(100), truth_mask=mask((0, 1, 4, 7)))
    outcome = Outcome(made, paint(flat(113), (0, 0, 4, 4), 151))
    assert value(plain("change_iou"), outcome) == pytest.approx(12 / 28)
    focus = np.zeros((8, 8), np.float32)
    focus[:, :3] = 1  # 8 x 3, of which 4 x 3 were changed
    assert value(plain("change_iou_focus"), replace(outcome, focus=focus)) == pytest.approx(12 / 28)
    assert np.isnan(value(plain("change_iou_focus"), outcome))


def covered(rows: int) -> EditCase:
    """A case of 100 x 100 pixels whose mask covers the first rows."""
    return case(flat(0, 100), truth_mask=mask((0, 0, 100, rows), 100, 100))


@pytest.mark.parametrize(
    ("rows", "group"),
    [(1, "1-10 %"), (9, "1-10 %"), (10, "10-30 %"), (29, "10-30 %"), (30, "30-100 %"), (100, "30-100 %")],
)
def test_a_share_has_its_group(rows, group):
    assert area_of(covered(rows)) == group


def test_tiny_empty_and_missing_masks_have_groups_of_their_own():
    assert area_of(case(flat(0, 100), truth_mask=mask((0, 0, 99, 1), 100, 100))) == "0-1 %"
    assert area_of(case(flat(0, 8), truth_mask=mask(None))) == "0 %"
    assert area_of(case(flat(0, 8))) == "no mask"


def test_the_group_is_in_every_row_and_shown_only_if_a_case_has_a_mask():
    cases = [covered(5), case(flat(0))]
    metrics = {"l1_source": plain("l1_source")}
    rows = score_cases(lambda chosen: (Outcome(c, c.request.image) for c in chosen), cases, metrics, "", 2)
    assert rows[AREA].tolist() == ["1-10 %", "no mask"] and groups_of(rows, ["seen"]) == ["seen", AREA]
    assert groups_of(pd.DataFrame({AREA: ["no mask"], "l1_source": [NAN]}), []) == []
