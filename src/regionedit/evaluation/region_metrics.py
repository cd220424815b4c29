"""How well a region matches the true one: on the predictor's grid, in pixels, and at its best threshold.

In pixels there are two references: the human mask, which in MagicBrush is a loose brush stroke, and the pixels in which
source and target picture differ. Precision and recall complement the IoU, because a tight region inside a loose mask
has a modest IoU.

Legend: G side of the grid, T thresholds. A true cell is one whose coverage exceeds 0.25.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image
from scipy.ndimage import binary_opening
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from regionedit.config import EvaluateConfig
from regionedit.evaluation.metrics import NAN, CaseMetric, change, edited_pixels, pixels
from regionedit.evaluation.outcomes import Outcome, cell_means
from regionedit.region_scores import THRESHOLDS, TRUTH_COVERAGE

TAU = 0.1  # mean over the channels of |difference| above which a pixel has changed
OPENING = 3  # side in pixels of a square that fits into real changes; smaller ones are compression noise


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool arrays; 1 if both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def precision(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the predicted elements that are true; NaN if nothing is predicted."""
    return float(truth[predicted].mean()) if predicted.any() else NAN


def recall(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true elements that are predicted; NaN if nothing is true."""
    return float(predicted[truth].mean()) if truth.any() else NAN


def iou_curve(probability: np.ndarray, truth: np.ndarray) -> Tensor:
    """[T] float64: for each threshold, IoU of the cells above it with bool `truth` of the same shape."""
    return torch.tensor([iou(probability > threshold, truth) for threshold in THRESHOLDS], dtype=torch.float64)


class GridMetric(CaseMetric):
    """A metric of the cells of a grid.

    Args:
        grid: side of the grid.
        threshold: cells with P above it are the region.
    """

    of_region = True
    headline = True
    higher_is_better = True
    needs = ("masks",)

    def __init__(self, grid: int, threshold: float = 0.5):
        super().__init__()
        self.grid, self.threshold = grid, threshold

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(config.grid, config.region.threshold)

    def score(self, outcome: Outcome) -> float:
        probability = outcome.grid(self.grid)
        if probability is None:
            return NAN
        return self.compare(probability > self.threshold, cell_means(outcome.truth, self.grid) > TRUTH_COVERAGE)

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        """The score of bool [G, G] cells."""
        raise NotImplementedError


class RegionIoU(GridMetric):
    """Intersection over union of the region's cells and the true cells."""

    title = "IoU"
    compare = staticmethod(iou)


class RegionPrecision(GridMetric):
    """Share of the region's cells that are true; NaN if the region is empty."""

    title = "prec."
    compare = staticmethod(precision)


class RegionRecall(GridMetric):
    """Share of the true cells that are in the region; NaN if no cell is true."""

    title = "recall"
    compare = staticmethod(recall)


class RegionArea(GridMetric):
    """Share of the grid's cells that are in the region."""

    title = "area"

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        return float(predicted.mean())


class RegionIoUBest(GridMetric):
    """Region IoU at the one threshold that is best for the whole set: what a better threshold alone could gain.

    Only cases of the given `operations` choose the threshold and get a value; the others are NaN.
    """

    title = "IoU best"

    def __init__(self, grid: int, operations: Sequence[str] = ("replace", "recolour", "remove")):
        super().__init__(grid)
        self.operations = tuple(operations)

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(config.grid)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        self.cases.append(torch.stack([self.curve(outcome, self.is_ready(outcome)) for outcome in outcomes]))

    def curve(self, outcome: Outcome, ready: bool) -> Tensor:
        """[T] IoU at each threshold."""
        probability = outcome.grid(self.grid)
        if not ready or probability is None or outcome.case.operation not in self.operations:
            return torch.full((len(THRESHOLDS),), NAN, dtype=torch.float64)
        return iou_curve(probability, cell_means(outcome.truth, self.grid) > TRUTH_COVERAGE)

    def best(self) -> int:
        """Index of the threshold with the highest mean."""
        return int(dim_zero_cat(self.cases).nanmean(0).nan_to_num(-1).argmax())

    def best_threshold(self) -> float:
        """The threshold with the highest mean IoU over all cases so far."""
        return float(THRESHOLDS[self.best()])

    def values(self) -> Tensor:
        return dim_zero_cat(self.cases)[:, self.best()]


class PixelMetric(CaseMetric):
    """A metric of the region's pixels against the human mask.

    The region is where P is above the threshold; without a saved P it is the mask.

    Args:
        threshold: pixels with P above it are the region.
    """

    of_region = True
    headline = True
    higher_is_better = True
    needs = ("regions", "masks")

    def __init__(self, threshold: float = 0.5):
        super().__init__()
        self.threshold = threshold

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(config.region.threshold)

    def truth(self, outcome: Outcome) -> np.ndarray | None:
        """Bool [H, W] pixels of the true region, or None if the case has none."""
        return edited_pixels(outcome)

    def score(self, outcome: Outcome) -> float:
        truth = self.truth(outcome)
        region = outcome.mask > 0.5 if outcome.probability is None else outcome.probability > self.threshold
        return NAN if truth is None else self.compare(region, truth)

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        """The score of bool [H, W] pixels."""
        raise NotImplementedError


class RegionIoUPixel(PixelMetric):
    """Intersection over union of the region and the pixels of which the human mask covers more than half."""

    title = "IoU pixel"
    compare = staticmethod(iou)


class MaskIoU(PixelMetric):
    """Intersection over union of the mask that was edited and the pixels of which the human mask covers more than half.

    The edited mask is the region after refining, growing and thresholding by the editor's settings. NaN without a mask.
    """

    title = "IoU mask"
    compare = staticmethod(iou)

    def score(self, outcome: Outcome) -> float:
        truth = self.truth(outcome)
        return NAN if truth is None or outcome.mask is None else self.compare(outcome.mask > 0.5, truth)


class RegionPrecisionPixel(PixelMetric):
    """Share of the region's pixels that the human mask covers; NaN if the region is empty."""

    title = "prec. pixel"
    compare = staticmethod(precision)


class RegionRecallPixel(PixelMetric):
    """Share of the human mask's pixels that are in the region; NaN if the mask is empty."""

    title = "recall pixel"
    compare = staticmethod(recall)


class ChangedMetric(PixelMetric):
    """A metric of the region's pixels against `changed_pixels` of source and target picture; NaN if none changed."""

    needs = ("regions", "target pictures")

    def truth(self, outcome: Outcome) -> np.ndarray | None:
        changed = changed_pixels(outcome.case.request.image, outcome.case.truth_image)
        return changed if changed.any() else None


class RegionIoUChanged(ChangedMetric):
    """Intersection over union of the region and the pixels in which source and target picture differ."""

    title = "IoU changed"
    compare = staticmethod(iou)


class RegionPrecisionChanged(ChangedMetric):
    """Share of the region's pixels in which source and target picture differ; NaN if the region is empty."""

    title = "prec. changed"
    compare = staticmethod(precision)


class RegionRecallChanged(ChangedMetric):
    """Share of the pixels in which source and target picture differ that are in the region."""

    title = "recall changed"
    compare = staticmethod(recall)


class ChangeIoU(CaseMetric):
    """Intersection over union of the pixels that the editor changed and the human mask; works without a region.

    A pixel counts as changed if |edited - source|, mean over the channels, is above `tau`. An editor that changes
    nothing scores 0.

    Args:
        tau: in [0, 1].
    """

    title = "change IoU"
    headline = True
    higher_is_better = True
    needs = ("masks",)

    def __init__(self, tau: float = TAU):
        super().__init__()
        self.tau = tau

    def score(self, outcome: Outcome) -> float:
        return iou(change(outcome) > self.tau, edited_pixels(outcome))


class ChangeIoUFocus(ChangeIoU):
    """Intersection over union of the changed pixels and the mask of the evaluation's own editor, the same in every row.

    It measures how well an edit without a region stays inside that mask (Mask-Blended Inference).
    """

    title = "change IoU region"
    headline = False
    needs = ("regions of the editor itself",)

    def score(self, outcome: Outcome) -> float:
        return iou(change(outcome) > self.tau, outcome.focus > 0.5)


def changed_pixels(source: Image, target: Image, tau: float = TAU, opening: int = OPENING) -> np.ndarray:
    """Bool [H, W] of the source's size: |target - source|, mean over the channels, above `tau`; then a binary opening.

    Args:
        opening: side in pixels of the square structuring element; 1 keeps every pixel.
    """
    changed = np.abs(pixels(target, source.size) - pixels(source)).mean(-1) > tau
    return binary_opening(changed, np.ones((opening, opening), bool))
