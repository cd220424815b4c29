"""How well a region matches the true one: on the predictor's grid, in pixels, and at its best threshold.

Legend: G side of the grid, T thresholds. A true cell is one whose coverage exceeds 0.25.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from regionedit.config import EvaluateConfig
from regionedit.evaluation.metrics import NAN, CaseMetric
from regionedit.evaluation.outcomes import Outcome, cell_means

TRUTH_CELL = 0.25
THRESHOLDS = np.linspace(0.01, 0.99, 99, dtype=np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool arrays; two empty ones agree: 1."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def iou_curve(probability: np.ndarray, truth: np.ndarray) -> Tensor:
    """[T] float64 IoU of the cells above each threshold with bool `truth` of the same shape."""
    return torch.tensor([iou(probability > threshold, truth) for threshold in THRESHOLDS], dtype=torch.float64)


class GridMetric(CaseMetric):
    """A metric of cells.

    Args:
        grid: side of the grid.
        threshold: P above it is the region.
    """

    of_region = True
    headline = True
    higher_is_better = True

    def __init__(self, grid: int, threshold: float = 0.5):
        super().__init__()
        self.grid, self.threshold = grid, threshold

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(config.grid, config.region.threshold)

    def score(self, outcome: Outcome) -> float:
        probability = outcome.grid(self.grid)
        if probability is None or outcome.truth is None:
            return NAN
        return self.compare(probability > self.threshold, cell_means(outcome.truth, self.grid) > TRUTH_CELL)

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        """The score of bool [G, G] cells."""
        raise NotImplementedError


class RegionIoU(GridMetric):
    """Intersection over union of the cells with P above the threshold and the true cells."""

    title = "IoU"

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        return iou(predicted, truth)


class RegionPrecision(GridMetric):
    """Share of the predicted cells that are true; NaN where nothing was predicted."""

    title = "prec."

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        return float(truth[predicted].mean()) if predicted.any() else NAN


class RegionRecall(GridMetric):
    """Share of the true cells that were predicted; NaN where no cell is true."""

    title = "recall"

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        return float(predicted[truth].mean()) if truth.any() else NAN


class RegionArea(GridMetric):
    """Share of the grid that was predicted."""

    title = "area"

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        return float(predicted.mean())


class RegionIoUBest(GridMetric):
    """Region IoU at the one threshold that suits the whole set best: what calibration alone could gain.

    `operations` choose the threshold and have a value; others are NaN.
    """

    title = "IoU best"

    def __init__(self, grid: int, operations: Sequence[str] = ("replace", "recolour", "remove")):
        super().__init__(grid)
        self.operations = tuple(operations)

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(config.grid)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        self.cases.append(torch.stack([self.curve(outcome) for outcome in outcomes]))

    def curve(self, outcome: Outcome) -> Tensor:
        """[T] IoU at each threshold."""
        probability = outcome.grid(self.grid)
        if probability is None or outcome.truth is None or outcome.case.operation not in self.operations:
            return torch.full((len(THRESHOLDS),), NAN, dtype=torch.float64)
        return iou_curve(probability, cell_means(outcome.truth, self.grid) > TRUTH_CELL)

    def best(self) -> int:
        """Index of the threshold with the highest mean."""
        return int(dim_zero_cat(self.cases).nanmean(0).nan_to_num(-1).argmax())

    def best_threshold(self) -> float:
        """The threshold with the highest mean IoU over all cases so far."""
        return float(THRESHOLDS[self.best()])

    def values(self) -> Tensor:
        return dim_zero_cat(self.cases)[:, self.best()]


class RegionIoUPixel(GridMetric):
    """Intersection over union of the pixels with P above the threshold and those that the true region half covers."""

    title = "IoU pixel"

    def score(self, outcome: Outcome) -> float:
        if outcome.probability is None or outcome.truth is None:
            return NAN
        return iou(outcome.probability > self.threshold, outcome.truth > 0.5)
