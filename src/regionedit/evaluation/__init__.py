"""Evaluation: the edit road run over a benchmark, then scores of the saved pictures.

To add a benchmark or a metric, write it and add one line here.
"""

from __future__ import annotations

from regionedit.evaluation import metrics, microworld_scores, region_metrics
from regionedit.evaluation.benchmarks import BENCHMARKS

__all__ = ["BENCHMARKS", "METRICS"]

METRICS: dict[str, type[metrics.CaseMetric]] = {
    "region_iou": region_metrics.RegionIoU,
    "region_iou_best": region_metrics.RegionIoUBest,
    "region_iou_pixel": region_metrics.RegionIoUPixel,
    "region_precision": region_metrics.RegionPrecision,
    "region_recall": region_metrics.RegionRecall,
    "region_area": region_metrics.RegionArea,
    "pointing": microworld_scores.Pointing,
    "pointing_chance": microworld_scores.PointingChance,
    "add_inside": microworld_scores.AddInside,
    "add_size_ratio": microworld_scores.AddSizeRatio,
    "add_present": microworld_scores.AddPresent,
    "background_iou": microworld_scores.BackgroundIoU,
    "edit_success": microworld_scores.EditSuccess,
    "outside_change": metrics.OutsideChange,
    "outside_truth_change": metrics.OutsideTruthChange,
    "l1": metrics.L1,
    "clip_image": metrics.ClipImage,
    "clip_text": metrics.ClipText,
    "clip_direction": metrics.ClipDirection,
    "dino": metrics.DinoSimilarity,
}
