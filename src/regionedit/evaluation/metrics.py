"""Metrics of finished cases, torchmetrics style: `update` with outcomes, `compute` for the mean, `values` for the rows.

Every metric gives one number per case and NaN where it has no meaning (the case failed, no region was found, there is
no target picture, the captions do not differ); means leave NaN out and say how many cases they are over. A black or
blank picture is a picture like any other. `why_missing` says, once per run, what the cases without a value lack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from regionedit.config import EvaluateConfig
from regionedit.evaluation.backbones import Backbone, Field, load_backbone
from regionedit.evaluation.outcomes import Outcome

NAN = float("nan")

NEEDS: dict[str, Callable[[Outcome], bool]] = {
    "target pictures": lambda outcome: outcome.case.truth_image is not None,
    "masks": lambda outcome: outcome.case.truth_mask is not None,
    "regions": lambda outcome: outcome.probability is not None or outcome.mask is not None,
    "regions of the editor itself": lambda outcome: outcome.focus is not None,
    "source captions": lambda outcome: _has_text(outcome, "source"),
    "target captions": lambda outcome: _has_text(outcome, "target"),
}


class CaseMetric(Metric):
    """One number per case.

    Subclasses implement `score`, or `score_all` where many cases together are cheaper.

    Attributes:
        needs: what a case must have, keys of NEEDS; one that lacks it has NaN.
        of_region: reads the region and needs no edited picture.
        headline: averaged over the benchmark's headline operations alone.
        higher_is_better: None where neither is.
        title: the column's head.
    """

    full_state_update = False
    needs: ClassVar[tuple[str, ...]] = ()
    of_region = False
    headline = False
    title = ""

    def __init__(self):
        super().__init__()
        self.add_state("cases", default=[], dist_reduce_fx="cat")
        self.lacking: Counter[str] = Counter()

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        """The metric with what it takes from the configuration.

        Raises:
            ValueError: a backbone that the configuration names cannot be loaded.
        """
        return cls()

    def score(self, outcome: Outcome) -> float:
        """The value of one case that has everything in `needs`."""
        raise NotImplementedError

    def score_all(self, outcomes: Sequence[Outcome]) -> Sequence[float] | Tensor:
        """The values of at least one case, all of which have everything in `needs`."""
        return [self.score(outcome) for outcome in outcomes]

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Score these cases, in order; what a case scores does not depend on its batch."""
        ready = [self.is_ready(outcome) for outcome in outcomes]
        scores = torch.full((len(outcomes),), NAN, dtype=torch.float64)
        if any(ready):
            chosen = [outcome for outcome, scored in zip(outcomes, ready, strict=True) if scored]
            scores[torch.tensor(ready)] = torch.as_tensor(self.score_all(chosen), dtype=torch.float64)
        self.cases.append(scores)

    def is_ready(self, outcome: Outcome) -> bool:
        """Can the case be scored? What it lacks is counted; that it failed is counted elsewhere."""
        if outcome.failed is not None or (outcome.picture is None and not self.of_region):
            return False
        lacks = next((need for need in self.needs if not NEEDS[need](outcome)), None)
        if lacks:
            self.lacking[lacks] += 1
        return lacks is None

    def why_missing(self) -> str:
        """What cases without a value lacked, such as "needs target pictures (7 cases have none)"; empty for nothing."""
        return "; ".join(
            f"needs {what} ({count} case{'s have' if count > 1 else ' has'} none)"
            for what, count in sorted(self.lacking.items())
        )

    def states(self) -> tuple[str, ...]:
        """Names of the lists to which an update adds one tensor each, a row per case."""
        return tuple(self._defaults)

    def values(self) -> Tensor:
        """[n] float64, in the order of the updates."""
        return dim_zero_cat(self.cases)

    def compute(self) -> Tensor:
        """The mean over all cases that have a value."""
        return self.values().nanmean()

    def reset(self) -> None:
        """Forget all cases."""
        super().reset()
        self.lacking.clear()


class BackboneMetric(CaseMetric):
    """A metric that asks a frozen network; without one every case has NaN.

    Args:
        network: from `load_backbone`, or None where the configuration names none.

    Attributes:
        backbone: the field of EvaluateConfig that names the network.
    """

    backbone: ClassVar[Field]

    def __init__(self, network: Backbone | None):
        super().__init__()
        self.network = network

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        name = getattr(config, cls.backbone)
        return cls(None if name is None else load_backbone(cls.backbone, name, config.device))

    def is_ready(self, outcome: Outcome) -> bool:
        return self.network is not None and super().is_ready(outcome)

    def why_missing(self) -> str:
        return f"needs the backbone {self.backbone}" if self.network is None else super().why_missing()


def rgb(picture: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture as RGB, resized by PIL, bicubic, where it has another size."""
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    return picture if size in (None, picture.size) else picture.resize(size, Image.Resampling.BICUBIC)


def pixels(picture: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1] of `rgb`."""
    return np.asarray(rgb(picture, size), np.float32) / 255


def change(outcome: Outcome) -> np.ndarray:
    """[H, W] mean over the channels of |edited - source|, in [0, 1], at the source's size."""
    source = outcome.case.request.image
    return np.abs(pixels(outcome.picture, source.size) - pixels(source)).mean(-1)


def edited_pixels(outcome: Outcome, frame: bool = False) -> np.ndarray:
    """Bool [H, W]: the pixels of which the human mask covers more than half.

    Args:
        frame: with the outermost pixels, as PIE-Bench takes them "to avoid annotation errors in boundary".
    """
    mask = outcome.truth > 0.5
    if frame:
        mask[[0, -1]] = True
        mask[:, [0, -1]] = True
    return mask


def _has_text(outcome: Outcome, which: str) -> bool:
    captions = outcome.case.request.captions
    return captions is not None and bool(getattr(captions, which).strip())
