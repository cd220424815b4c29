"""Pixel differences: L1 and L2 to a reference picture, and the change outside the region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from regionedit.evaluation.metrics import NAN, CaseMetric, change, pixels
from regionedit.evaluation.outcomes import Outcome


class PixelDifference(CaseMetric):
    """A mean over height, width and channels of one picture; the edited picture is resized to the reference, bicubic.

    As in MagicBrush's image_eval.py, pixels are in [0, 1], and a table averages over pictures, not over all pixels.
    """

    higher_is_better = False

    def reference(self, outcome: Outcome) -> Image.Image:
        """The picture that the edited one is compared with."""
        raise NotImplementedError

    def difference(self, outcome: Outcome) -> np.ndarray:
        """[H, W, 3] in [-1, 1]; float64, so that the mean square never exceeds the mean absolute value."""
        reference = self.reference(outcome)
        return pixels(outcome.picture, reference.size).astype(np.float64) - pixels(reference)


class L1(PixelDifference):
    """Mean absolute difference from the target picture, in [0, 1]."""

    title = "L1"
    needs = ("target pictures",)

    def reference(self, outcome: Outcome) -> Image.Image:
        return outcome.case.truth_image

    def score(self, outcome: Outcome) -> float:
        return float(np.abs(self.difference(outcome)).mean())


class L2(L1):
    """Mean squared difference from the target picture, in [0, 1], never above L1; "L2" in the literature is no norm."""

    title = "L2"

    def score(self, outcome: Outcome) -> float:
        return float((self.difference(outcome) ** 2).mean())


class L1Source(L1):
    """Mean absolute difference from the source picture, in [0, 1] (Emu Edit's L1); 0 for an unchanged picture."""

    title = "L1 source"
    needs = ()

    def reference(self, outcome: Outcome) -> Image.Image:
        return outcome.case.request.image


class L2Source(L2):
    """Mean squared difference from the source picture, in [0, 1]; 0 for an unchanged picture."""

    title = "L2 source"
    needs = ()

    def reference(self, outcome: Outcome) -> Image.Image:
        return outcome.case.request.image


class OutsideChange(CaseMetric):
    """Mean absolute change of the pixels that neither the predicted nor the true region touches, in [0, 1].

    Exactly 0 for an editor that changes nothing outside its region.
    """

    needs = ("regions",)
    title = "outside"
    higher_is_better = False

    def score(self, outcome: Outcome) -> float:
        return _change_outside(outcome, [outcome.mask, outcome.truth])


class OutsideTruthChange(CaseMetric):
    """Mean absolute change of the pixels that the true region does not touch: changes that were not asked for."""

    title = "outside truth"
    higher_is_better = False
    needs = ("masks",)

    def score(self, outcome: Outcome) -> float:
        return _change_outside(outcome, [outcome.truth])


def _change_outside(outcome: Outcome, regions: Sequence[np.ndarray | None]) -> float:
    """Mean absolute change where all regions are 0; NaN if they cover the whole picture."""
    changed = change(outcome)
    outside = np.ones(changed.shape, bool)
    for region in regions:
        outside &= True if region is None else region == 0
    return float(changed[outside].mean()) if outside.any() else NAN
