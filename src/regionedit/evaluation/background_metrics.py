"""How much changed outside the human mask: PSNR, SSIM, LPIPS and MSE against the source, each in two variants, and the
structure distance of the whole picture.

`*_pie` is PIE-Bench's variant (PnPInversion, evaluation/evaluate.py): a frame of one pixel at the picture's border is
added to the mask, both pictures are made black inside it, and the mean is over the whole picture. The equal black part
improves the score, the more the larger the mask. The variant without a suffix averages only over the pixels outside the
mask, without the frame, and does not depend on the pixels inside. If the mask leaves no background, there is no value.

Pictures are [3, H, W] float32 in [0, 1], the edited one at the source's size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from regionedit.evaluation.metrics import NAN, BackboneMetric, CaseMetric, edited_pixels, pixels
from regionedit.evaluation.outcomes import Outcome

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


class Background(CaseMetric):
    """A comparison of the edited picture with the source outside the mask.

    Attributes:
        pie: PIE-Bench's variant.
    """

    pie = False
    needs = ("masks",)

    def score(self, outcome: Outcome) -> float:
        keep_HW = torch.from_numpy(~edited_pixels(outcome, frame=self.pie))
        if not keep_HW.any():
            return NAN
        edited, source = _pictures(outcome)
        if self.pie:
            return self.whole(edited * keep_HW, source * keep_HW)
        # Windows and receptive fields at the mask's edge reach inside, so both pictures show the source there.
        return self.kept(torch.where(keep_HW, edited, source), source, keep_HW)

    def whole(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        """Compare two whole pictures."""
        raise NotImplementedError

    def kept(self, a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor) -> float:
        """Compare the kept pixels of two pictures."""
        return self.whole(a_CHW[:, keep_HW], b_CHW[:, keep_HW])


class BackgroundPSNR(Background):
    """PSNR in dB, from the mean squared error over the pixels outside the mask."""

    title = "bg. PSNR"
    higher_is_better = True

    def whole(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        return psnr(a_CHW, b_CHW)


class BackgroundPSNRPie(BackgroundPSNR):
    """PSNR in dB, PIE-Bench's variant."""

    title = "bg. PSNR PIE"
    pie = True


class BackgroundMSE(Background):
    """Mean squared error in [0, 1] over the pixels outside the mask; tables often show it times 10^4."""

    title = "bg. MSE"
    higher_is_better = False

    def whole(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        return float(mean_squared_error(a_CHW, b_CHW))


class BackgroundMSEPie(BackgroundMSE):
    """Mean squared error in [0, 1], PIE-Bench's variant."""

    title = "bg. MSE PIE"
    pie = True


class BackgroundSSIM(Background):
    """Structural similarity, at most 1, mean over the pixels outside the mask; tables may show it times 100."""

    title = "bg. SSIM"
    higher_is_better = True

    def whole(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        return float(ssim_map(a_CHW, b_CHW).mean())

    def kept(self, a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor) -> float:
        return float(ssim_map(a_CHW, b_CHW)[keep_HW].mean())


class BackgroundSSIMPie(BackgroundSSIM):
    """Structural similarity, at most 1, PIE-Bench's variant."""

    title = "bg. SSIM PIE"
    pie = True


class BackgroundLPIPS(Background, BackboneMetric):
    """LPIPS, at least 0, mean of its map over the pixels outside the mask; tables often show it times 10^3.

    The value is approximate: the map is upsampled from coarse layers. Near the mask's edge a layer also sees the
    inside, where both pictures show the source, which lowers the value.
    """

    title = "bg. LPIPS"
    higher_is_better = False
    backbone = "lpips"

    def whole(self, a_CHW: Tensor, b_CHW: Tensor) -> float:
        return self.network.distance(a_CHW, b_CHW)

    def kept(self, a_CHW: Tensor, b_CHW: Tensor, keep_HW: Tensor) -> float:
        return float(self.network.map(a_CHW, b_CHW)[keep_HW].mean())


class BackgroundLPIPSPie(BackgroundLPIPS):
    """LPIPS, at least 0, PIE-Bench's variant (it uses the network squeeze)."""

    title = "bg. LPIPS PIE"
    pie = True


class StructureDistance(BackboneMetric):
    """PIE-Bench's structure distance between edited and source picture, whole pictures; see `Structure`.

    At least 0; tables usually show it times 10^3.
    """

    title = "structure"
    higher_is_better = False
    backbone = "structure"

    def score(self, outcome: Outcome) -> float:
        return self.network.distance(*_pictures(outcome))


def _pictures(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """Edited and source picture."""
    source = outcome.case.request.image
    both = (pixels(outcome.picture, source.size), pixels(source))
    return tuple(torch.from_numpy(picture).permute(2, 0, 1).contiguous() for picture in both)
