"""Evaluation: edits every case of a benchmark, then scores the saved pictures.

To add a metric, write it and add one line to `METRICS`; for a benchmark, add one line to `BENCHMARKS` in
benchmarks/__init__.py. A metric's name includes its reference: `l1` compares with the target picture, `l1_source` with
the source, so that two protocols never share a column by accident.
"""

from __future__ import annotations

from regionedit.evaluation import (
    background_metrics,
    embedding_metrics,
    metrics,
    microworld_scores,
    pixel_metrics,
    region_metrics,
    text_metrics,
)
from regionedit.evaluation.benchmarks import BENCHMARKS

__all__ = ["BENCHMARKS", "METRICS"]

METRICS: dict[str, type[metrics.CaseMetric]] = {
    "region_iou": region_metrics.RegionIoU,
    "region_iou_best": region_metrics.RegionIoUBest,
    "region_precision": region_metrics.RegionPrecision,
    "region_recall": region_metrics.RegionRecall,
    "region_area": region_metrics.RegionArea,
    "region_iou_pixel": region_metrics.RegionIoUPixel,
    "mask_iou": region_metrics.MaskIoU,
    "region_precision_pixel": region_metrics.RegionPrecisionPixel,
    "region_recall_pixel": region_metrics.RegionRecallPixel,
    "region_iou_changed": region_metrics.RegionIoUChanged,
    "region_precision_changed": region_metrics.RegionPrecisionChanged,
    "region_recall_changed": region_metrics.RegionRecallChanged,
    "change_iou": region_metrics.ChangeIoU,
    "change_iou_focus": region_metrics.ChangeIoUFocus,
    "pointing": microworld_scores.Pointing,
    "pointing_chance": microworld_scores.PointingChance,
    "add_inside": microworld_scores.AddInside,
    "add_size_ratio": microworld_scores.AddSizeRatio,
    "add_present": microworld_scores.AddPresent,
    "background_iou": microworld_scores.BackgroundIoU,
    "edit_success": microworld_scores.EditSuccess,
    "outside_change": pixel_metrics.OutsideChange,
    "outside_truth_change": pixel_metrics.OutsideTruthChange,
    "l1": pixel_metrics.L1,
    "l2": pixel_metrics.L2,
    "l1_source": pixel_metrics.L1Source,
    "l2_source": pixel_metrics.L2Source,
    "clip_image": embedding_metrics.ClipImage,
    "clip_image_source": embedding_metrics.ClipImageSource,
    "clip_text": text_metrics.ClipText,
    "clip_instruction": text_metrics.ClipInstruction,
    "clip_instruction_rank": text_metrics.ClipInstructionRank,
    "clip_direction": text_metrics.ClipDirection,
    "clip_direction_raw": text_metrics.ClipDirectionRaw,
    "clip_whole": text_metrics.ClipWhole,
    "clip_edited": text_metrics.ClipEdited,
    "dino": embedding_metrics.Dino,
    "dino_source": embedding_metrics.DinoSource,
    "dinov2": embedding_metrics.DinoV2,
    "dinov2_source": embedding_metrics.DinoV2Source,
    "pick_score": text_metrics.PickScore,
    "background_psnr": background_metrics.BackgroundPSNR,
    "background_ssim": background_metrics.BackgroundSSIM,
    "background_lpips": background_metrics.BackgroundLPIPS,
    "background_mse": background_metrics.BackgroundMSE,
    "background_psnr_pie": background_metrics.BackgroundPSNRPie,
    "background_ssim_pie": background_metrics.BackgroundSSIMPie,
    "background_lpips_pie": background_metrics.BackgroundLPIPSPie,
    "background_mse_pie": background_metrics.BackgroundMSEPie,
    "structure_distance": background_metrics.StructureDistance,
}
