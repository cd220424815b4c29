"""The microworld's metrics on two hand-made cases, each against a value by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionedit.config import EvaluateConfig
from regionedit.evaluation import METRICS
from regionedit.evaluation.baselines import with_chance_box
from regionedit.evaluation.metrics import Settings
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.scoring import interval, summarise
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.scene import Background, Scene, Thing
from regionedit.microworld.truth import truth_mask
from regionedit.records import Captions, EditCase, EditRequest
from tests.metric_cases import NAN, value

CIRCLE = Thing("circle", "red", 16, 16, 10)
SQUARE = Thing("square", "blue", 48, 48, 10)
GROUND = Background("white", "plain")


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render([scene])[0])


def make_case(edit: Edit) -> EditCase:
    captions = Captions(edit.source_caption, edit.target_caption)
    return EditCase(
        id=edit.operation,
        request=EditRequest(picture(edit.source), edit.instruction, captions=captions, id=edit.operation),
        operation=edit.operation,
        truth_mask=Image.fromarray((truth_mask(edit) * 255).round().astype(np.uint8)),
        truth_image=picture(edit.target),
        truth=edit,
    )


@pytest.fixture(scope="module")
def config(tiny_judge_dir, tiny_dino_dir):
    return EvaluateConfig(device="cpu", grid=4, judge=f"local-dir:{tiny_judge_dir}", dino=str(tiny_dino_dir))


REMOVE = make_case(
    Edit(
        operation="remove",
        instruction="remove the red circle",
        source_caption="a red circle and a blue square on a plain white background",
        target_caption="a blue square on a plain white background",
        source=Scene(GROUND, (CIRCLE, SQUARE)),
        target=Scene(GROUND, (SQUARE,)),
        named=0,
    )
)
ADD = make_case(
    Edit(
        operation="add",
        instruction="add a green square right of the red circle",
        source_caption="a red circle on a plain white background",
        target_caption="a red circle and a green square right of the red circle on a plain white background",
        source=Scene(GROUND, (CIRCLE,)),
        target=Scene(GROUND, (CIRCLE, Thing("square", "green", 48, 16, 10))),
        added=1,
        anchor=0,
        relation="right of",
    )
)


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    out = np.zeros((64, 64), np.float32)
    out[y0:y1, x0:x1] = 1
    return out


# Remove: the region is the left upper quarter (4 of 16 cells, all of which the circle of radius 10 covers by more than
# a quarter) and the picture came back as the truth. Add: the right upper quarter, alike, and the picture unchanged.
TWO = (
    Outcome(REMOVE, REMOVE.truth_image, box(0, 0, 32, 32), box(0, 0, 32, 32)),
    Outcome(ADD, ADD.request.image, box(32, 0, 64, 32), box(32, 0, 64, 32)),
)
CIRCLE_PIXELS = int((truth_mask(REMOVE.truth) > 0.5).sum())
ADDED_PIXELS = int((truth_mask(ADD.truth) > 0.5).sum())
ADDED_L1 = np.abs(np.asarray(ADD.truth_image, float) - np.asarray(ADD.request.image, float)).mean() / 255
EXPECTED = {
    "region_iou": (1.0, 1.0),
    "region_iou_best": (1.0, NAN),
    "region_iou_pixel": (CIRCLE_PIXELS / 1024, ADDED_PIXELS / 1024),
    "mask_iou": (CIRCLE_PIXELS / 1024, ADDED_PIXELS / 1024),
    "region_precision": (1.0, 1.0),
    "region_recall": (1.0, 1.0),
    "region_area": (0.25, 0.25),
    "pointing": (1.0, NAN),
    "pointing_chance": (0.5, NAN),
    "add_inside": (NAN, 1.0),
    "add_size_ratio": (NAN, 1024 / ADDED_PIXELS),
    "add_present": (NAN, 0.0),
    "background_iou": (NAN, NAN),
    "edit_success": (1.0, 0.0),
    "outside_change": (0.0, 0.0),
    "outside_truth_change": (0.0, 0.0),
    "l1": (0.0, ADDED_L1),
    "clip_image": (1.0, None),
    "clip_text": (None, None),
    "clip_direction": (None, 0.0),
    "dino": (1.0, None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_microworlds_metrics_on_two_cases(name, config):
    """None stands for a value that only the (random) judge knows: finite and a cosine."""
    metric = METRICS[name].from_config(config)
    metric.update(TWO[:1])
    metric.update(TWO[1:])
    values = metric.values().tolist()
    for found, expected in zip(values, EXPECTED[name], strict=True):
        if expected is None:
            assert -1 <= found <= 1
        else:
            assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)
    if not all(map(math.isnan, values)):
        assert metric.compute() == pytest.approx(np.nanmean(values))


def test_a_region_without_a_picture_has_no_picture_scores(config):
    region = [replace(TWO[0], picture=None)]
    for name, kind in METRICS.items():
        metric = kind.from_config(config)
        metric.update(region)
        assert kind.of_region or metric.values().isnan().all(), name


def test_outside_change_is_seen_where_neither_region_reaches(config):
    spoilt = np.asarray(REMOVE.truth_image).copy()
    spoilt[63, 0] = 255 - spoilt[63, 0]
    outcome = replace(TWO[0], picture=Image.fromarray(spoilt))
    found = value(METRICS["outside_change"].from_config(config), outcome)
    change = np.abs(np.asarray(outcome.picture, float) - np.asarray(REMOVE.request.image, float)).mean(-1) / 255
    outside = (outcome.mask == 0) & (outcome.truth == 0)
    assert found == pytest.approx(change[outside].mean(), rel=1e-5) and found > 0


def test_the_sources_own_grid_is_preferred_to_means(config):
    patches = np.zeros((4, 4), np.float32)
    patches[0, 0] = 1
    outcome = replace(TWO[0], patches=patches)
    assert value(METRICS["region_area"].from_config(config), outcome) == pytest.approx(1 / 16)


def test_background_region_is_compared_with_all_but_the_things(config):
    edit = replace(REMOVE.truth, operation="background", named=None, target=Scene(Background("black", "plain"), ()))
    case = replace(REMOVE, operation="background", truth=edit)
    rest = (coverage(edit.source).max(0) < 0.5).astype(np.float32)
    outcomes = [Outcome(case, None, rest, region) for region in (rest, np.ones_like(rest))]
    assert value(METRICS["background_iou"].from_config(config), *outcomes) == pytest.approx([1.0, rest.mean()])


def test_best_threshold_is_one_for_the_whole_set():
    metric = METRICS["region_iou_best"].metric(Settings(grid=4))
    low, high = TWO[0].probability * 0.2, TWO[0].probability * 0.4
    metric.update([replace(TWO[0], probability=low), replace(TWO[0], probability=np.maximum(high, 0.1))])
    assert 0.1 <= metric.best_threshold() < 0.2
    assert metric.values().tolist() == [1.0, 1.0]


def test_interval():
    rng = np.random.default_rng(0)
    found = interval(rng.normal(5, 1, 400))
    assert found["low"] < found["mean"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.2)
    assert interval(np.array([0.5]))["low"] is None
    assert interval(np.ones(3)) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 3}


def test_objects_that_should_stay_are_compared_in_their_boxes():
    """Half of the square's box is changed by 51 of 255 levels; the circle may change, because it is removed."""
    source = REMOVE.request.image
    rows, columns = np.nonzero(coverage(REMOVE.truth.source)[1] > 0.5)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    values = np.asarray(source).astype(int)
    values[:32, :32] = 0
    values[top : (top + bottom) // 2, left:right] += np.where(
        values[top : (top + bottom) // 2, left:right] < 128, 51, -51
    )
    edited = Image.fromarray(values.astype(np.uint8))
    metric = METRICS["objects_kept"].from_config(EvaluateConfig())
    assert (bottom - top) % 2 == 0
    assert value(metric, Outcome(REMOVE, edited)) == pytest.approx(1 - 0.2 / 2)
    whole = replace(REMOVE, truth=replace(REMOVE.truth, operation="background", named=None))
    alone = replace(REMOVE, truth=replace(REMOVE.truth, source=Scene(GROUND, (CIRCLE,))))
    for case in (whole, alone):
        assert math.isnan(value(METRICS["objects_kept"].from_config(EvaluateConfig()), Outcome(case, edited)))
    assert value(METRICS["objects_kept"].from_config(EvaluateConfig()), Outcome(ADD, ADD.truth_image)) == 1


def test_headline_metrics_are_taken_over_the_headline_operations_alone():
    metrics = {name: METRICS[name] for name in ("region_iou", "edit_success")}
    rows = pd.DataFrame(
        {
            "operation": ["remove", "remove", "add", "add"],
            "seen": ["seen", "unseen", "seen", "seen"],
            "failed": [None, None, None, "no room"],
            "note": [None, "64x64, the source has 32x32", None, None],
            "region_iou": [0.8, 0.6, 0.1, NAN],
            "edit_success": [1.0, 1.0, 0.0, NAN],
        }
    )
    found = summarise(rows, metrics, ["seen"], ("remove",))
    assert found["n"] == 4 and found["failed"] == found["other_size"] == 1
    assert found["metrics"]["region_iou"]["mean"] == pytest.approx(0.7)
    assert found["metrics"]["edit_success"]["mean"] == pytest.approx(2 / 3)
    assert found["by"]["operation"]["add"]["metrics"]["region_iou"]["mean"] == pytest.approx(0.1)
    assert found["by"]["seen"]["seen"]["metrics"]["region_iou"]["mean"] == pytest.approx(0.8)


def test_the_chance_box_does_not_move_and_covers_a_ninth():
    first, second = with_chance_box(REMOVE).mask, with_chance_box(REMOVE).mask
    assert first.tobytes() == second.tobytes()
    assert np.asarray(first).mean() / 255 == pytest.approx(1 / 9, abs=0.01)
