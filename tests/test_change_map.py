"""The change map finds what was edited, and nothing of what only disturbs the whole picture."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from regionedit.config import EvaluateConfig
from regionedit.evaluation import METRICS
from regionedit.evaluation.change_map import change_map, global_shift, without_drift
from regionedit.evaluation.landing_metrics import landing
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import iou
from tests.metric_cases import NAN, case, flat, mask, paint, plain, value

BOX = (60, 30, 90, 70)  # left, top, right, bottom


def scenery(width: int = 128, height: int = 96, seed: int = 0) -> np.ndarray:
    """A smooth random picture, [height, width, 3] in [0.1, 0.9], wide enough to be shifted."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = gaussian_filter(noise, (3, 3, 0))
    return 0.5 + 0.4 * np.clip(smooth / (3 * smooth.std()), -1, 1)


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def edited(values: np.ndarray) -> np.ndarray:
    """The picture with the box repainted in inverted colours and a stripe."""
    out, (left, top, right, bottom) = values.copy(), BOX
    out[top:bottom, left:right] = (1, 0, 0)
    return out


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def in_box(shape: tuple[int, int]) -> np.ndarray:
    place = np.zeros(shape, bool)
    place[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return place


def disturbances() -> dict:
    wide = scenery(140, 108)
    inner = (slice(6, 102), slice(6, 134))

    def with_edit(drift: bool = False, shift: tuple[int, int] = (0, 0), quality: int = 0) -> Image.Image:
        whole = wide.copy()
        whole[inner] = edited(wide[inner])
        down, right = shift
        values = whole[6 - down : 102 - down, 6 - right : 134 - right]
        values = values * (1.06, 1, 0.94) + (0.06, -0.05, 0.05) if drift else values
        return jpeg(picture(values), quality) if quality else picture(values)

    return {
        "source": picture(wide[inner]),
        "nothing": with_edit(),
        "shift": with_edit(shift=(3, -2)),
        "drift": with_edit(drift=True),
        "JPEG": with_edit(quality=75),
        "all": with_edit(drift=True, shift=(-1, 3), quality=75),
    }


@pytest.mark.parametrize("name", ["nothing", "shift", "drift", "JPEG", "all"])
def test_the_edit_is_found_under_every_disturbance(name):
    made = disturbances()
    assert iou(change_map(made["source"], made[name]), in_box((96, 128))) > 0.88


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (2, -3), (-5, 4)])
def test_a_disturbed_source_has_no_change(shift):
    wide, (down, right) = scenery(140, 108, seed=3), shift
    source, moved = wide[6:102, 6:134], wide[6 - down : 102 - down, 6 - right : 134 - right]
    assert global_shift(source, moved) == shift
    result = jpeg(picture(moved * (0.95, 1.05, 1) + (0.05, -0.04, 0.03)), 75)
    assert not change_map(picture(source), result).any()


def test_half_a_pixel_of_shift_is_no_change():
    source = picture(scenery())
    size, half = source.size, (1, 0, 0.5, 0, 1, 0.5)
    assert not change_map(source, source.transform(size, Image.Transform.AFFINE, half, Image.Resampling.BILINEAR)).any()


def test_a_new_background_is_an_edit_and_no_drift():
    """Most pixels take another colour: fitted as drift, the edit would vanish and the object would count as changed."""
    source = paint(flat(60, 64), (20, 20, 40, 40), 200)
    result = paint(flat(130, 64), (20, 20, 40, 40), 200)
    changed = change_map(source, result)
    assert changed[:18].all() and not changed[22:38, 22:38].any()


def test_drift_is_fitted_to_the_pixels_that_agree():
    source = np.random.default_rng(0).uniform(0.2, 0.8, (4000, 3)).astype(np.float32)
    result = source * np.float32([1.1, 1, 0.9]) + np.float32([0.02, -0.05, 0.08])
    result[:800] = 1  # a fifth is edited
    assert np.abs(without_drift(source, result) - result)[800:].max() < 0.02
    assert np.array_equal(without_drift(source, source + np.float32(0.2)), source)


def test_a_removed_line_is_seen_from_both_sides():
    """Three pixels thin: in the source's 3 x 3 range everywhere but in its middle, so only one direction shows it."""
    source = paint(flat(100, 32), (0, 15, 32, 18), 250)
    assert change_map(source, flat(100, 32)).any() and change_map(flat(100, 32), source).any()


def test_large_and_tiny_pictures_and_results_of_another_size():
    source = flat(90, 1200)
    result = paint(source, (300, 300, 600, 600), 200).resize((600, 600))
    changed = change_map(source, result)
    assert changed.shape == (1200, 1200) and iou(changed, np.asarray(mask((300, 300, 600, 600), 1200, 1200)) > 0) > 0.95
    for side in (1, 2, 5):
        assert change_map(flat(0, side), flat(0, side)).shape == (side, side)


def place(box: tuple[int, int, int, int] | None) -> np.ndarray:
    return np.asarray(mask(box, 100, 100)) > 0


@pytest.mark.parametrize(
    ("box", "scores"),
    [
        ((10, 10, 30, 30), (1, 0, 1, 1)),
        ((14, 14, 34, 34), (256 / 544, 144 / 400, 1, 1)),  # 0.04 + 0.04: just near enough
        ((15, 14, 35, 34), (240 / 560, 160 / 400, 0, 1)),
        ((10, 10, 34, 30), (400 / 480, 80 / 480, 1, 1)),  # 1.2 times the area
        ((10, 10, 35, 30), (400 / 500, 100 / 500, 1, 0)),
        ((10, 10, 30, 25), (300 / 400, 0, 1, 0)),
        (None, (0, NAN, NAN, NAN)),
    ],
)
def test_landing_by_hand(box, scores):
    found = landing(place(box), place((10, 10, 30, 30)))
    assert list(found.values()) == pytest.approx(list(scores), nan_ok=True)


def test_the_metrics_compare_the_change_map_with_the_human_mask():
    source = flat(100, 64)
    outcome = Outcome(
        case(source, truth_mask=mask((8, 8, 40, 40), 64, 64)), paint(source, (8, 8, 24, 40), 250), None, None
    )
    names = ("landed_iou", "landed_outside", "landed_position", "landed_size")
    found = [value(plain(name), outcome) for name in names]
    assert found == [pytest.approx(iou(outcome.changed, place_in_64((8, 8, 40, 40)))), 0, 0, 0]
    assert found[0] == pytest.approx(0.5, abs=0.07)
    unedited = Outcome(outcome.case, source)
    assert [value(plain(name), unedited) for name in names] == pytest.approx([0, NAN, NAN, NAN], nan_ok=True)
    lacking = METRICS["landed_iou"].from_config(EvaluateConfig())
    lacking.update([Outcome(case(source), source)])
    assert "masks" in lacking.why_missing()


def place_in_64(box: tuple[int, int, int, int]) -> np.ndarray:
    return np.asarray(mask(box, 64, 64)) > 0
