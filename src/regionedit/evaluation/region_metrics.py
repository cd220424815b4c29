"""How well a region matches the true one: on the predictor's grid, in pixels, and at its best threshold.

In pixels there are two references: the human mask, which in MagicBrush is a loose brush stroke, and the pixels in which
source and target picture differ. Precision and recall complement the IoU, because a tight region inside a loose mask
has a modest IoU.

Legend: G side of the grid, T thresholds. A true cell is one whose coverage exceeds 0.25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from scipy.ndimage import binary_opening
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from regionedit.evaluation.change_map import OPENING, TAU
from regionedit.evaluation.metrics import NAN, CaseMetric, Measure, Settings, change, edited_pixels, pixels
from regionedit.evaluation.outcomes import Outcome, cell_means
from regionedit.region_scores import LOCAL_OPERATIONS, THRESHOLDS, TRUTH_COVERAGE


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


def area(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the elements that are predicted."""
    return float(predicted.mean())


Compare = Callable[[np.ndarray, np.ndarray], float]
"""Bool arrays of the region and of the true region, of one shape -> the score."""


@dataclass(frozen=True, kw_only=True)
class CellRegion(Measure):
    """A comparison of the region's cells with the true cells."""

    compare: Compare
    needs: tuple[str, ...] = ("masks",)
    of_region: bool = True
    headline: bool = True

    def score(self, outcome: Outcome, settings: Settings) -> float:
        probability = outcome.grid(settings.grid)
        if probability is None:
            return NAN
        return self.compare(probability > settings.threshold, true_cells(outcome, settings.grid))


@dataclass(frozen=True, kw_only=True)
class CellRegionBest(Measure):
    """Region IoU of the cells at the one threshold that is best for the whole set.

    Only cases of LOCAL_OPERATIONS choose the threshold and get a value; the others are NaN.
    """

    needs: tuple[str, ...] = ("masks",)
    of_region: bool = True
    headline: bool = True

    def metric(self, settings: Settings) -> IouCurves:
        return IouCurves(self, settings)


class IouCurves(CaseMetric):
    """Collects the IoU of each case at every threshold, because the best threshold depends on all cases."""

    def update(self, outcomes: Sequence[Outcome]) -> None:
        self.cases.append(torch.stack([self.curve(outcome, self.is_ready(outcome)) for outcome in outcomes]))

    def curve(self, outcome: Outcome, ready: bool) -> Tensor:
        """[T] IoU at each threshold."""
        grid = self.settings.grid
        probability = outcome.grid(grid)
        if not ready or probability is None or outcome.case.operation not in LOCAL_OPERATIONS:
            return torch.full((len(THRESHOLDS),), NAN, dtype=torch.float64)
        return iou_curve(probability, true_cells(outcome, grid))

    def best_threshold(self) -> float:
        """The threshold with the highest mean IoU over all cases so far."""
        return float(THRESHOLDS[self._best()])

    def values(self) -> Tensor:
        return dim_zero_cat(self.cases)[:, self._best()]

    def _best(self) -> int:
        return int(dim_zero_cat(self.cases).nanmean(0).nan_to_num(-1).argmax())


@dataclass(frozen=True, kw_only=True)
class PixelRegion(Measure):
    """A comparison of the region's pixels with the pixels of the human mask, or with those that should change.

    Args:
        edited_mask: the region is the mask that was edited, NaN without one. Else it is where P is above the
            threshold, or, without a saved P, the mask.
        changed: the truth is `changed_pixels` of source and target picture; NaN if none changed.
    """

    compare: Compare
    edited_mask: bool = False
    changed: bool = False
    needs: tuple[str, ...] = ("regions", "masks")
    of_region: bool = True
    headline: bool = True

    def score(self, outcome: Outcome, settings: Settings) -> float:
        if self.edited_mask and outcome.mask is None:
            return NAN
        truth = self._truth(outcome)
        if truth is None:
            return NAN
        from_mask = self.edited_mask or outcome.probability is None
        region = outcome.mask > 0.5 if from_mask else outcome.probability > settings.threshold
        return self.compare(region, truth)

    def _truth(self, outcome: Outcome) -> np.ndarray | None:
        """Bool [H, W] pixels of the true region, or None if the case has none."""
        if not self.changed:
            return edited_pixels(outcome)
        changed = changed_pixels(outcome.case.request.image, outcome.case.truth_image)
        return changed if changed.any() else None


@dataclass(frozen=True, kw_only=True)
class ChangeIoU(Measure):
    """Intersection over union of the pixels that the editor changed and a mask; works without a region.

    A pixel counts as changed if |edited - source|, mean over the channels, is above TAU. An editor that changes
    nothing scores 0.

    Args:
        focus: the mask is that of the evaluation's own editor, the same in every row; else it is the human mask.
    """

    focus: bool = False

    def score(self, outcome: Outcome, settings: Settings) -> float:
        return iou(change(outcome) > TAU, outcome.focus > 0.5 if self.focus else edited_pixels(outcome))


def true_cells(outcome: Outcome, grid: int) -> np.ndarray:
    """Bool [G, G]: the cells that the human mask covers by more than TRUTH_COVERAGE."""
    return cell_means(outcome.truth, grid) > TRUTH_COVERAGE


def changed_pixels(source: Image, target: Image) -> np.ndarray:
    """Bool [H, W] of the source's size: |target - source|, mean over the channels, above TAU; then a binary opening."""
    changed = np.abs(pixels(target, source.size) - pixels(source)).mean(-1) > TAU
    return binary_opening(changed, np.ones((OPENING, OPENING), bool))
