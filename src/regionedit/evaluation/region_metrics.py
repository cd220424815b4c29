"""How well a region matches the true one: on the predictor's grid, in pixels, and at its best threshold.

In pixels there are two references: the human mask, which in MagicBrush is a loose brush stroke, and the pixels in which
source and target picture differ. Precision and recall stand beside the IoU because a tight region in a loose mask has a
modest IoU.

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

TRUTH_CELL = 0.25
THRESHOLDS = np.linspace(0.01, 0.99, 99, dtype=np.float32)
TAU = 0.1  # mean over the channels of |difference| above which a pixel has changed
OPENING = 3  # side of the square that has to fit into a changed area: less is the grain of a codec


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool arrays; two empty ones agree: 1."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def precision(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the predicted that is true; NaN where nothing was predicted."""
    return float(truth[predicted].mean()) if predicted.any() else NAN


def recall(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true that was predicted; NaN where nothing is true."""
    return float(predicted[truth].mean()) if truth.any() else NAN


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
        return self.compare(probability > self.threshold, cell_means(outcome.truth, self.grid) > TRUTH_CELL)

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        """The score of bool [G, G] cells."""
        raise NotImplementedError


class RegionIoU(GridMetric):
    """Intersection over union of the cells with P above the threshold and the true cells."""

    title = "IoU"
    compare = staticmethod(iou)


class RegionPrecision(GridMetric):
    """Share of the predicted cells that are true; NaN where nothing was predicted."""

    title = "prec."
    compare = staticmethod(precision)


class RegionRecall(GridMetric):
    """Share of the true cells that were predicted; NaN where no cell is true."""

    title = "recall"
    compare = staticmethod(recall)


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
        self.cases.append(torch.stack([self.curve(outcome, self.is_ready(outcome)) for outcome in outcomes]))

    def curve(self, outcome: Outcome, ready: bool) -> Tensor:
        """[T] IoU at each threshold."""
        probability = outcome.grid(self.grid)
        if not ready or probability is None or outcome.case.operation not in self.operations:
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


class PixelMetric(CaseMetric):
    """A metric of the pixels with P above the threshold (of the mask where no P was kept) against the human mask.

    Args:
        threshold: P above it is the region.
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
        """Bool [H, W] pixels that should be found, or None where there is nothing to find."""
        return edited_pixels(outcome)

    def score(self, outcome: Outcome) -> float:
        truth = self.truth(outcome)
        found = outcome.mask > 0.5 if outcome.probability is None else outcome.probability > self.threshold
        return NAN if truth is None else self.compare(found, truth)

    def compare(self, predicted: np.ndarray, truth: np.ndarray) -> float:
        """The score of bool [H, W] pixels."""
        raise NotImplementedError


class RegionIoUPixel(PixelMetric):
    """Intersection over union, in pixels, of the region and what the human mask at least half covers."""

    title = "IoU pixel"
    compare = staticmethod(iou)


class MaskIoU(PixelMetric):
    """Intersection over union, in pixels, of the mask that was painted under, refined, grown or cut as the editor's
    settings say, and what the human mask at least half covers; NaN where no mask was kept."""

    title = "IoU mask"
    compare = staticmethod(iou)

    def score(self, outcome: Outcome) -> float:
        truth = self.truth(outcome)
        return NAN if truth is None or outcome.mask is None else self.compare(outcome.mask > 0.5, truth)


class RegionPrecisionPixel(PixelMetric):
    """Share of the region's pixels that the human mask covers; NaN where the region is empty."""

    title = "prec. pixel"
    compare = staticmethod(precision)


class RegionRecallPixel(PixelMetric):
    """Share of the human mask's pixels that the region holds; NaN where the mask is empty."""

    title = "recall pixel"
    compare = staticmethod(recall)


class ChangedMetric(PixelMetric):
    """A metric of the region's pixels against `changed_pixels` of source and target picture; NaN where none changed."""

    needs = ("regions", "target pictures")

    def truth(self, outcome: Outcome) -> np.ndarray | None:
        changed = changed_pixels(outcome.case.request.image, outcome.case.truth_image)
        return changed if changed.any() else None


class RegionIoUChanged(ChangedMetric):
    """Intersection over union, in pixels, of the region and what differs between source and target picture."""

    title = "IoU changed"
    compare = staticmethod(iou)


class RegionPrecisionChanged(ChangedMetric):
    """Share of the region's pixels in which source and target picture differ; NaN where the region is empty."""

    title = "prec. changed"
    compare = staticmethod(precision)


class RegionRecallChanged(ChangedMetric):
    """Share of the pixels in which source and target picture differ that the region holds."""

    title = "recall changed"
    compare = staticmethod(recall)


class ChangeIoU(CaseMetric):
    """Intersection over union of what the editor really changed and the human mask; fits editors without a region.

    Changed is a pixel with |edited - source|, mean over the channels, above `tau`. An editor that changed nothing
    scores 0.

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
    """Intersection over union of what was really changed and the region that the evaluation's own editor edits, for
    every row the same: how well an edit without a region stays where it belongs (Mask-Blended Inference).
    """

    title = "change IoU region"
    headline = False
    needs = ("regions of the editor itself",)

    def score(self, outcome: Outcome) -> float:
        return iou(change(outcome) > self.tau, outcome.focus > 0.5)


def changed_pixels(source: Image, target: Image, tau: float = TAU, opening: int = OPENING) -> np.ndarray:
    """Bool [H, W] of the source's size: |target - source|, mean over the channels, above `tau`, then opened.

    Args:
        opening: side in pixels of the square structuring element; 1 keeps every pixel.
    """
    changed = np.abs(pixels(target, source.size) - pixels(source)).mean(-1) > tau
    return binary_opening(changed, np.ones((opening, opening), bool))
