"""Pixel differences: to a reference picture, and outside the region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regionedit.evaluation.metrics import NAN, Measure, Reference, Settings, change, pixels, reference_picture
from regionedit.evaluation.outcomes import Outcome


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
