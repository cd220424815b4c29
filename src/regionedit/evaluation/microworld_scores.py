"""Metrics that need a world with known objects: pointing, the place of an added object, the success of an edit.

`case.truth` is the microworld's `Edit`; cases of other benchmarks have no value.
"""

from __future__ import annotations

import numpy as np

from regionedit.config import EvaluateConfig
from regionedit.evaluation.metrics import NAN, CaseMetric, rgb
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import iou
from regionedit.microworld.edits import Edit
from regionedit.microworld.pixel_check import check
from regionedit.microworld.renderer import coverage
from regionedit.microworld.truth import valid_space
from regionedit.region_scores import pointing


def _edit(outcome: Outcome, operation: str | None = None) -> Edit | None:
    edit = outcome.case.truth
    return edit if isinstance(edit, Edit) and operation in (None, edit.operation) else None


class Pointing(CaseMetric):
    """Whether the named object has the highest mean probability of all objects in the scene.

    Only scenes with two or more objects and an edit that names one have a value. A tie of k objects that includes the
    named one counts 1/k, so a constant map scores chance.
    """

    of_region = True
    headline = True
    higher_is_better = True
    title = "pointing"

    def score(self, outcome: Outcome) -> float:
        edit = _edit(outcome)
        if edit is None or edit.named is None or len(edit.source.things) < 2 or outcome.probability is None:
            return NAN
        return self.point(outcome.probability, coverage(edit.source), edit.named)

    @staticmethod
    def point(probability: np.ndarray, things: np.ndarray, named: int) -> float:
        """The score of a [H, W] map, given the [K, H, W] visible coverage of all objects."""
        return pointing(probability, things, named)


class PointingChance(Pointing):
    """The score of pointing at random: one over the number of objects."""

    title = "chance"

    @staticmethod
    def point(probability: np.ndarray, things: np.ndarray, named: int) -> float:
        return 1 / len(things)


class AddInside(CaseMetric):
    """Add: share of the region that lies in free space, on the stated side of the object that the instruction names."""

    of_region = True
    higher_is_better = True
    title = "valid space"

    def __init__(self, threshold: float = 0.5):
        super().__init__()
        self.threshold = threshold

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(config.region.threshold)

    def score(self, outcome: Outcome) -> float:
        edit = _edit(outcome, "add")
        if edit is None or outcome.probability is None:
            return NAN
        region = outcome.probability > self.threshold
        return float(valid_space(edit)[region].mean()) if region.any() else 0.0


class AddSizeRatio(AddInside):
    """Add: area of the region over the area of the object in the true edit; 1 means equal areas."""

    higher_is_better = None
    title = "size ratio"

    def score(self, outcome: Outcome) -> float:
        if _edit(outcome, "add") is None or outcome.probability is None:
            return NAN
        return float((outcome.probability > self.threshold).sum() / (outcome.truth > 0.5).sum())


class BackgroundIoU(AddInside):
    """Background: pixel IoU of the region with the complement of all objects."""

    title = "rest IoU"

    def score(self, outcome: Outcome) -> float:
        edit = _edit(outcome, "background")
        if edit is None or outcome.probability is None:
            return NAN
        return iou(outcome.probability > self.threshold, coverage(edit.source).max(axis=0, initial=0) < 0.5)


class EditSuccess(CaseMetric):
    """Whether the requested change is visible, checked by colour and shape of the pixels without a network."""

    higher_is_better = True
    title = "success"

    def score(self, outcome: Outcome) -> float:
        edit = _edit(outcome)
        if edit is None:
            return NAN
        return float(check(np.asarray(rgb(outcome.picture, outcome.case.request.image.size)), edit))


class AddPresent(EditSuccess):
    """Add: whether the new object is visible in its place."""

    title = "present"

    def score(self, outcome: Outcome) -> float:
        return super().score(outcome) if _edit(outcome, "add") is not None else NAN
