"""Metrics that need a world with known objects: pointing, the place of an added object, the success of an edit.

`case.truth` is the microworld's `Edit`; cases of other benchmarks have no value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regionedit import region_scores
from regionedit.evaluation.metrics import NAN, Measure, Settings, change, rgb
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import iou
from regionedit.microworld.edits import Edit
from regionedit.microworld.pixel_check import check
from regionedit.microworld.renderer import coverage
from regionedit.microworld.truth import valid_space


@dataclass(frozen=True, kw_only=True)
class MicroworldMeasure(Measure):
    """A score of a microworld case, whose objects are known; cases of other benchmarks score NaN.

    Args:
        score_edit: the edit, its outcome and the threshold of the region -> the score. With `of_region`, outcomes
            without a probability map score NaN and are not passed on.
        operation: cases with another operation score NaN; None: every operation is scored.
    """

    score_edit: Callable[[Edit, Outcome, float], float]
    operation: str | None = None

    def score(self, outcome: Outcome, settings: Settings) -> float:
        edit = outcome.case.truth
        if not isinstance(edit, Edit) or self.operation not in (None, edit.operation):
            return NAN
        if self.of_region and outcome.probability is None:
            return NAN
        return self.score_edit(edit, outcome, settings.threshold)


def pointing(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """`region_scores.pointing`; NaN if the edit names no object, or the scene has only one."""
    return region_scores.pointing(outcome.probability, coverage(edit.source), edit.named) if _one_of(edit) else NAN


def pointing_chance(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """One over the number of objects; NaN where `pointing` is."""
    return 1 / len(edit.source.things) if _one_of(edit) else NAN


def inside(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """Share of the region that lies in the space where the object may be added; 0 if the region is empty."""
    region = outcome.probability > threshold
    return float(valid_space(edit)[region].mean()) if region.any() else 0.0


def size_ratio(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """Area of the region over the area of the true region, at least 0."""
    return float((outcome.probability > threshold).sum() / (outcome.truth > 0.5).sum())


def background_iou(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """Pixel IoU of the region with the complement of all objects."""
    return iou(outcome.probability > threshold, coverage(edit.source).max(axis=0, initial=0) < 0.5)


def success(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """1 if the requested change is visible in the picture, else 0."""
    return float(check(np.asarray(rgb(outcome.picture, outcome.case.request.image.size)), edit))


def objects_kept(edit: Edit, outcome: Outcome, threshold: float) -> float:
    """1 minus the mean absolute change in the boxes around the objects that should stay, mean over these objects.

    EdiVal's pixel consistency (arXiv 2509.13399) with known boxes instead of a detector. NaN if no object should stay,
    and for edits of the background or of everything, which change the boxes too.
    """
    if edit.operation in ("background", "global"):
        return NAN
    visible_KHW = coverage(edit.source) > 0.5
    changed_HW = change(outcome)
    kept = [object_HW for k, object_HW in enumerate(visible_KHW) if k != edit.named and object_HW.any()]
    boxes = [np.ix_(*(np.arange(places.min(), places.max() + 1) for places in np.nonzero(o_HW))) for o_HW in kept]
    return float(np.mean([1 - changed_HW[box].mean() for box in boxes])) if boxes else NAN


def _one_of(edit: Edit) -> bool:
    """Whether the edit names one of several objects."""
    return edit.named is not None and len(edit.source.things) >= 2
