"""Where an edit landed, for editors with or without a mask: the change map of source and result against the true mask.

BPM (arXiv 2506.13827) judges position and size before the two sides of an edit. Its rules for a place that should stay
the same are used here, on boxes from the change map instead of a detector. Its total score is not computed: it depends
on the other systems in the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regionedit.evaluation.metrics import NAN, Measure, Settings, edited_pixels
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import iou

POSITION = 0.08  # BPM: 40 of 500 pixels, sum of the horizontal and the vertical distance of the boxes' centres
SIZE = (0.8, 1.2)  # BPM: ratio of the boxes' areas
LANDING = ("iou", "outside", "position", "size")


def landing(place_HW: np.ndarray, truth_HW: np.ndarray) -> dict[str, float]:
    """How a place matches the true one, both bool; the scores of LANDING.

    `iou`: intersection over union; 1 if both are empty. `outside`: share of the place that is not true; NaN if the
    place is empty. `position`: 1 if the boxes' centres are near each other, else 0; `size`: 1 if the boxes' areas are
    similar, else 0; both NaN if either place is empty.
    """
    outside = float((~truth_HW)[place_HW].mean()) if place_HW.any() else NAN
    position = size = NAN
    if place_HW.any() and truth_HW.any():
        found, true = _box(place_HW), _box(truth_HW)
        position = float(np.abs(found[0] - true[0]).sum() <= POSITION)
        ratio = found[1].prod() / true[1].prod()
        size = float(SIZE[0] <= ratio <= SIZE[1])
    return dict(zip(LANDING, (iou(place_HW, truth_HW), outside, position, size), strict=True))


@dataclass(frozen=True, kw_only=True)
class Landed(Measure):
    """A score of `landing`, named by `what`: the change map against the true mask."""

    what: str
    needs: tuple[str, ...] = ("masks",)
    headline: bool = True

    def score(self, outcome: Outcome, settings: Settings) -> float:
        return landing(outcome.changed, edited_pixels(outcome))[self.what]


def _box(place_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and sides of the box around a place, as shares of the picture's sides."""
    shape = np.array(place_HW.shape)
    where = np.stack(np.nonzero(place_HW))
    low, high = where.min(1), where.max(1) + 1
    return (low + high) / 2 / shape, (high - low) / shape
