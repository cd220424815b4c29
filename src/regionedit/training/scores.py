"""Scores of predicted regions over a validation set, without and, where available, with the true region.

Shape letters: B batch, N patches, K objects of one picture, H W pixels, T thresholds.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from regionedit import masks, region_scores
from regionedit.data.batches import TrainBatch
from regionedit.region_scores import LOCAL_OPERATIONS, THRESHOLDS, TRUTH_COVERAGE

CURVE = "iou_at_thresholds"


class RegionScores:
    """Means of per-sample scores, over all ranks. Patches with P above the threshold are edited."""

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._sums: dict[str, list] = defaultdict(lambda: [0.0, 0.0])

    def add_losses(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Add the batch mean of the loss and the unweighted terms [B]."""
        count = len(next(iter(terms.values())))
        self._add("loss", loss.expand(count))
        for name, value_B in terms.items():
            self._add(name, value_B)

    def add_regions(self, probability_BN: Tensor, swapped_BN: Tensor, batch: TrainBatch, grid: int) -> None:
        """Add predicted regions, and those of the same pictures with swapped instructions."""
        hard_BN, swapped_BN = probability_BN > self.threshold, swapped_BN > self.threshold
        self._add("region_area", probability_BN.mean(1))
        self._add("region_above_threshold", hard_BN.float().mean(1))
        if len(probability_BN) > 1:
            self._add("instruction_swap_iou", masks.mask_iou(hard_BN, swapped_BN))
        if batch.truth_mask_B1HW is None:
            return
        truth_BN = masks.downsample(batch.truth_mask_B1HW, grid) > TRUTH_COVERAGE
        self._add_by_operation("iou", masks.mask_iou(hard_BN, truth_BN), batch.operations)
        above_TBN = probability_BN > torch.tensor(THRESHOLDS, device=probability_BN.device)[:, None, None]
        curve = masks.mask_iou(above_TBN.flatten(0, 1), truth_BN.repeat(len(THRESHOLDS), 1))
        self._add_by_operation(CURVE, curve.view(-1, len(truth_BN)).T, batch.operations)
        if batch.object_masks is not None:
            self._add_by_operation("pointing", pointing(probability_BN, batch.object_masks, grid), batch.operations)

    def compute(self) -> dict[str, float]:
        """Means by name; resets the sums. `iou_best`: the best mean IoU over the thresholds."""
        sums = self._gather()
        self._sums.clear()
        means = {name: total / count for name, (total, count) in sums.items() if count}
        for name in [name for name in means if name.startswith(CURVE)]:
            means[name.replace(CURVE, "iou_best")] = float(means.pop(name).max())
        return means

    def _add_by_operation(self, name: str, value_B: Tensor, operations: tuple[str, ...]) -> None:
        self._add(name, value_B)
        for operation in sorted(set(operations)):
            chosen_B = torch.tensor([o == operation for o in operations], device=value_B.device)
            self._add(f"{name}/{operation}", value_B[chosen_B])
            if operation in LOCAL_OPERATIONS:
                self._add(f"{name}/local", value_B[chosen_B])

    def _add(self, name: str, value_B: Tensor) -> None:
        """Add values [B], or curves [B, T]; undefined values (NaN) are left out."""
        defined = value_B.float()[~value_B.isnan()] if value_B.ndim == 1 else value_B.float()
        total = defined.sum(0).cpu()
        self._sums[name][0] += float(total) if value_B.ndim == 1 else total
        self._sums[name][1] += len(defined)

    def _gather(self) -> dict[str, list]:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return dict(self._sums)
        everywhere = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, dict(self._sums))
        total = defaultdict(lambda: [0.0, 0.0])
        for sums in everywhere:
            for name, (value, count) in sums.items():
                total[name][0] += value
                total[name][1] += count
        return dict(total)


def pointing(probability_BN: Tensor, object_masks: tuple[Tensor, ...], grid: int) -> Tensor:
    """`region_scores.pointing` of each sample, [B] in [0, 1].

    NaN where this is undefined: the edit names no object, or no other object is visible.

    Args:
        object_masks: per sample bool [K, H, W], the named object first.
    """
    hits = []
    for probability_N, masks_KHW in zip(probability_BN.float(), object_masks, strict=True):
        visible_K = masks_KHW.flatten(1).any(1)
        if not visible_K[0] or visible_K.sum() < 2:
            hits.append(float("nan"))
            continue
        probability_HW = masks.upsample(probability_N[None], grid, tuple(masks_KHW.shape[-2:]))[0, 0]
        hits.append(region_scores.pointing(probability_HW.cpu().numpy(), masks_KHW[visible_K].cpu().numpy(), 0))
    return torch.tensor(hits)
