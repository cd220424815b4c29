"""CompBench's metrics, as its eval_all.py computes them (arXiv 2505.12200).

All pictures are stretched to 512 x 512 first, bicubic, and masks by nearest neighbour. Outside the mask, both pictures
are multiplied by 1 - mask and compared as a whole; the equal black part improves the score, the more the larger the
mask. Inside, pictures are cut to the mask's box, without its last row and column.

The script gives cases with an empty mask 0 for both similarities. Here they have no value and are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regionedit.evaluation.backbones import Field
from regionedit.evaluation.metrics import NAN, Measure, Settings, pixels, rgb
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.pair_networks import Lpips

SIDE = (512, 512)


@dataclass(frozen=True, kw_only=True)
class BoxText(Measure):
    """LC-T: 100 times the cosine of CLIP's embeddings of the box in the edited picture and the caption, at least 0.

    With captions of two objects (separated by a vertical bar), the mean of both.
    """

    needs: tuple[str, ...] = ("masks", "target captions")
    backbone: Field | None = "judge"

    def score(self, outcome: Outcome, settings: Settings) -> float:
        box = _box(outcome)
        if box is None:
            return NAN
        captions = [text.strip() for text in outcome.case.request.captions.target.split("|")]
        picture_1D = settings.network.unit_pictures([rgb(outcome.picture, SIDE).crop(box)])
        cosines = settings.network.unit_texts(captions) @ picture_1D[0]
        return float((100 * cosines).clamp(min=0).mean())


@dataclass(frozen=True, kw_only=True)
class BoxPicture(Measure):
    """LC-I: cosine of CLIP's embeddings of the box in the edited and in the target picture."""

    needs: tuple[str, ...] = ("masks", "target pictures")
    backbone: Field | None = "judge"

    def score(self, outcome: Outcome, settings: Settings) -> float:
        box = _box(outcome)
        if box is None:
            return NAN
        both = [rgb(picture, SIDE).crop(box) for picture in (outcome.picture, outcome.case.truth_image)]
        edited_D, target_D = settings.network.unit_pictures(both)
        return float(edited_D @ target_D)


@dataclass(frozen=True, kw_only=True)
class SquareBackground(Measure):
    """A comparison of edited and source picture outside the mask, both stretched to the square.

    Args:
        compare: as of `pixel_metrics.Background`.
    """

    compare: Callable[[Tensor, Tensor, Tensor | None, Lpips | None], float]
    needs: tuple[str, ...] = ("masks",)

    def score(self, outcome: Outcome, settings: Settings) -> float:
        keep_HW = torch.from_numpy(1 - np.asarray(_square_mask(outcome), np.float32) / 255)
        if not keep_HW.any():
            return NAN
        pictures = (outcome.picture, outcome.case.request.image)
        edited, source = (torch.from_numpy(pixels(each, SIDE)).permute(2, 0, 1) * keep_HW for each in pictures)
        return self.compare(edited, source, None, settings.network)


def _square_mask(outcome: Outcome) -> Image.Image:
    return outcome.case.truth_mask.convert("L").resize(SIDE, Image.Resampling.NEAREST)


def _box(outcome: Outcome) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of the mask, as PIL's `crop` takes them; None if nothing is left inside."""
    left, top, right, bottom = _square_mask(outcome).getbbox() or (0, 0, 0, 0)
    box = left, top, right - 1, bottom - 1  # as the script, without the last row and column
    return box if box[0] < box[2] and box[1] < box[3] else None
