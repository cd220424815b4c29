"""Pixel differences: to a reference picture, outside the region, and outside the human mask; the structure distance.

Outside the mask, PSNR, SSIM, LPIPS and MSE against the source have two variants. `*_pie` is PIE-Bench's (PnPInversion,
evaluation/evaluate.py): a frame of one pixel at the picture's border is added to the mask, both pictures are made black
inside it, and the mean is over the whole picture. The equal black part improves the score, the more the larger the
mask. The variant without a suffix averages only over the pixels outside the mask, without the frame, and ignores those
inside. If the mask leaves no background, there is no value.

Pictures are [3, H, W] float32 in [0, 1], the edited one at the source's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from regionedit.evaluation.backbones import Field
from regionedit.evaluation.metrics import (
    NAN,
    Measure,
    Reference,
    Settings,
    change,
    edited_pixels,
    pixels,
    reference_picture,
)
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.pair_networks import Lpips

SSIM_SMALLEST = 6  # smallest side in pixels: the padding of the 11-pixel window reflects the picture at its border


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1], of any shape.

    Equal inputs score as if one value differed by one of 255 levels, the smallest difference of 8-bit pictures.
    torchmetrics gives infinity, and a single unchanged background would then make the mean of a table infinite.
    """
    largest = 20 * math.log10(255) + 10 * math.log10(a.numel())
    return min(float(peak_signal_noise_ratio(a, b, data_range=1.0)), largest)


def ssim_map(a_CHW: Tensor, b_CHW: Tensor) -> Tensor:
    """[H, W] structural similarity (Gaussian window of 11 pixels, sigma 1.5), mean over the channels.

    Its mean is the SSIM of torchmetrics, whose earlier versions left the outermost 5 pixels out.
    """
    if min(a_CHW.shape[1:]) < SSIM_SMALLEST:
        return torch.full(a_CHW.shape[1:], NAN)
    _, full = structural_similarity_index_measure(a_CHW[None], b_CHW[None], data_range=1.0, return_full_image=True)
    return full[0].mean(0)


def psnr_of(a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor | None, network: None) -> float:
    """`psnr` of the kept pixels."""
    return psnr(*_kept(a_CHW, b_CHW, keep_HW))


def mse_of(a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor | None, network: None) -> float:
    """Mean squared error of the kept pixels."""
    return float(mean_squared_error(*_kept(a_CHW, b_CHW, keep_HW)))


def ssim_of(a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor | None, network: None) -> float:
    """Mean of `ssim_map` over the kept pixels."""
    map_HW = ssim_map(a_CHW, b_CHW)
    return float((map_HW if keep_HW is None else map_HW[keep_HW]).mean())


def lpips_of(a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor | None, network: Lpips) -> float:
    """LPIPS of whole pictures, or the mean of its map over the kept pixels, which is approximate.

    The map is upsampled from coarse layers. Near the mask's edge a layer also sees the inside, where both pictures show
    the source, which lowers the value.
    """
    return network.distance(a_CHW, b_CHW) if keep_HW is None else float(network.map(a_CHW, b_CHW)[keep_HW].mean())


@dataclass(frozen=True, kw_only=True)
class PixelDifference(Measure):
    """Mean over height, width and channels of |edited - reference| ** power, in [0, 1].

    As in MagicBrush's image_eval.py, pixels are in [0, 1], the edited picture is resized to the reference (bicubic),
    and a table averages over pictures, not over all pixels.
    """

    reference: Reference
    power: Literal[1, 2]
    higher_is_better: bool | None = False

    def score(self, outcome: Outcome, settings: Settings) -> float:
        reference = reference_picture(outcome, self.reference)
        # In float64, so that the mean square never exceeds the mean absolute value.
        difference_HWC = pixels(outcome.picture, reference.size).astype(np.float64) - pixels(reference)
        return float((np.abs(difference_HWC) ** self.power).mean())


@dataclass(frozen=True, kw_only=True)
class ChangeOutside(Measure):
    """Mean absolute change of the pixels where all `regions` are 0, in [0, 1]; NaN if they cover the whole picture."""

    regions: tuple[Literal["mask", "truth"], ...]
    higher_is_better: bool | None = False

    def score(self, outcome: Outcome, settings: Settings) -> float:
        changed_HW = change(outcome)
        outside_HW = np.ones(changed_HW.shape, bool)
        for region in self.regions:
            region_HW = getattr(outcome, region)
            outside_HW &= True if region_HW is None else region_HW == 0
        return float(changed_HW[outside_HW].mean()) if outside_HW.any() else NAN


@dataclass(frozen=True, kw_only=True)
class Background(Measure):
    """A comparison of the edited picture with the source outside the mask.

    Args:
        compare: edited and source picture [3, H, W] in [0, 1], bool [H, W] of the pixels to keep (None: all) and the
            network -> the score.
        pie: PIE-Bench's variant.
    """

    compare: Callable[[Tensor, Tensor, Tensor | None, Lpips | None], float]
    pie: bool = False
    needs: tuple[str, ...] = ("masks",)

    def score(self, outcome: Outcome, settings: Settings) -> float:
        keep_HW = torch.from_numpy(~edited_pixels(outcome, frame=self.pie))
        if not keep_HW.any():
            return NAN
        edited, source = _pictures(outcome)
        if self.pie:
            return self.compare(edited * keep_HW, source * keep_HW, None, settings.network)
        # Windows and receptive fields at the mask's edge reach inside, so both pictures show the source there.
        return self.compare(torch.where(keep_HW, edited, source), source, keep_HW, settings.network)


@dataclass(frozen=True, kw_only=True)
class StructureDistance(Measure):
    """PIE-Bench's structure distance between edited and source picture; see `pair_networks.Structure`."""

    higher_is_better: bool | None = False
    backbone: Field | None = "structure"

    def score(self, outcome: Outcome, settings: Settings) -> float:
        return settings.network.distance(*_pictures(outcome))


def _kept(a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor | None) -> tuple[Tensor, Tensor]:
    return (a_CHW, b_CHW) if keep_HW is None else (a_CHW[:, keep_HW], b_CHW[:, keep_HW])


def _pictures(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """Edited and source picture."""
    source = outcome.case.request.image
    both = (pixels(outcome.picture, source.size), pixels(source))
    return tuple(torch.from_numpy(picture).permute(2, 0, 1).contiguous() for picture in both)
