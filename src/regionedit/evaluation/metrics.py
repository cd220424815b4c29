"""Metrics: what a case scores, and the states that collect the scores of many cases.

Every metric gives one number per case, and NaN where it is undefined (the case failed, it has no region or no target
picture, its captions do not differ). Means leave NaN out and come with the number of cases that they are over. Black or
blank pictures are scored like any other. `why_missing` reports, once per run, what the cases without a value lack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from regionedit.config import EvaluateConfig
from regionedit.evaluation.backbones import Backbone, Field, load_backbone
from regionedit.evaluation.outcomes import Outcome

if TYPE_CHECKING:
    from regionedit.evaluation.judge import Judge

NAN = float("nan")

Reference = Literal["target", "source"]

NEEDS: dict[str, Callable[[Outcome], bool]] = {
    "target pictures": lambda outcome: outcome.case.truth_image is not None,
    "masks": lambda outcome: outcome.case.truth_mask is not None,
    "masks of all turns so far": lambda outcome: getattr(outcome.case.truth, "edited", None) is not None,
    "regions": lambda outcome: outcome.probability is not None or outcome.mask is not None,
    "regions of the editor itself": lambda outcome: outcome.focus is not None,
    "answers of a judge": lambda outcome: bool(outcome.answers),
    "source captions": lambda outcome: _has_text(outcome, "source"),
    "target captions": lambda outcome: _has_text(outcome, "target"),
}


@dataclass(frozen=True)
class Settings:
    """What the configuration gives to a metric.

    Args:
        network: the metric's frozen network, or None if it has none or the configuration names none.
        grid: number of cells on the side of the grid on which regions are scored.
        threshold: in [0, 1]; cells and pixels with P above it are the region.
        judge: the vision-language model whose stored answers the metric reads, or None.
    """

    network: Backbone | None = None
    grid: int = 0
    threshold: float = 0.5
    judge: Judge | None = None


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a metric scores a case. It holds no scores; `from_config` and `metric` make the object that collects them.

    Subclasses implement `score`, or `score_all` if a batch of cases is cheaper.

    Args:
        title: column head.
        higher_is_better: None if neither direction is better.
        needs: what a case must have, keys of NEEDS; a case that lacks one scores NaN.
        backbone: the field of EvaluateConfig that names the metric's network, or None.
        of_region: the metric reads the region and needs no edited picture.
        headline: the mean is over the benchmark's headline operations only.
    """

    title: str
    higher_is_better: bool | None = True
    needs: tuple[str, ...] = ()
    backbone: Field | None = None
    of_region: bool = False
    headline: bool = False

    def lacks(self, outcome: Outcome, settings: Settings) -> str | None:
        """What the case needs and does not have, or None."""
        return next((need for need in self.needs if not NEEDS[need](outcome)), None)

    def score(self, outcome: Outcome, settings: Settings) -> float:
        """The value of one case that lacks nothing."""
        raise NotImplementedError

    def score_all(self, outcomes: Sequence[Outcome], settings: Settings) -> Sequence[float] | Tensor:
        """The values of one or more cases that lack nothing."""
        return [self.score(outcome, settings) for outcome in outcomes]

    def metric(self, settings: Settings) -> CaseMetric:
        """A new object that collects the scores of cases."""
        return CaseMetric(self, settings)

    def from_config(self, config: EvaluateConfig) -> CaseMetric:
        """A new `metric` with the settings and the network of the configuration.

        Raises:
            ValueError: a network that the configuration names cannot be loaded.
        """
        name = getattr(config, self.backbone) if self.backbone else None
        network = None if name is None else load_backbone(self.backbone, name, config.device)
        return self.metric(Settings(network, config.grid, config.region.threshold))


class CaseMetric(Metric):
    """The scores of cases, torchmetrics style: `update` with outcomes, `compute` for the mean, `values` for the rows.

    Without the network that its measure needs, every case scores NaN.
    """

    full_state_update = False

    def __init__(self, measure: Measure, settings: Settings):
        super().__init__()
        self.measure, self.settings = measure, settings
        self.lacks_network = measure.backbone is not None and settings.network is None
        self.add_state("cases", default=[], dist_reduce_fx="cat")
        self.lacking: Counter[str] = Counter()

    def score_all(self, outcomes: Sequence[Outcome]) -> Sequence[float] | Tensor:
        """The values of one or more cases that are ready; they are not collected."""
        return self.measure.score_all(outcomes, self.settings)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Score these cases in order; a case's score does not depend on its batch."""
        ready = [self.is_ready(outcome) for outcome in outcomes]
        scores = torch.full((len(outcomes),), NAN, dtype=torch.float64)
        if any(ready):
            chosen = [outcome for outcome, scored in zip(outcomes, ready, strict=True) if scored]
            scores[torch.tensor(ready)] = torch.as_tensor(self.score_all(chosen), dtype=torch.float64)
        self.cases.append(scores)

    def is_ready(self, outcome: Outcome) -> bool:
        """Whether the case can be scored; counts what it lacks (failed cases are counted elsewhere)."""
        if self.lacks_network or outcome.failed is not None:
            return False
        if outcome.picture is None and not self.measure.of_region:
            return False
        lacks = self.measure.lacks(outcome, self.settings)
        if lacks:
            self.lacking[lacks] += 1
        return lacks is None

    def why_missing(self) -> str:
        """What cases without a value lacked, such as "needs target pictures (7 cases have none)"; empty if nothing."""
        if self.lacks_network:
            return f"needs the backbone {self.measure.backbone}"
        return "; ".join(
            f"needs {what} ({count} case{'s have' if count > 1 else ' has'} none)"
            for what, count in sorted(self.lacking.items())
        )

    def states(self) -> tuple[str, ...]:
        """Names of the state lists; an update appends one tensor to each, with a row per case."""
        return tuple(self._defaults)

    def values(self) -> Tensor:
        """[n] float64, in the order of the updates."""
        return dim_zero_cat(self.cases)

    def compute(self) -> Tensor:
        """The mean over the cases that have a value."""
        return self.values().nanmean()


def rgb(picture: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture as RGB, resized by PIL (bicubic) if its size differs from `size`."""
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    return picture if size in (None, picture.size) else picture.resize(size, Image.Resampling.BICUBIC)


def pixels(picture: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """The result of `rgb` as [H, W, 3] float32 in [0, 1]."""
    return np.asarray(rgb(picture, size), np.float32) / 255


def change(outcome: Outcome) -> np.ndarray:
    """[H, W] mean over the channels of |edited - source|, in [0, 1], at the source's size."""
    source = outcome.case.request.image
    return np.abs(pixels(outcome.picture, source.size) - pixels(source)).mean(-1)


def edited_pixels(outcome: Outcome, frame: bool = False) -> np.ndarray:
    """Bool [H, W]: the pixels of which the human mask covers more than half.

    Args:
        frame: add the outermost pixels, as PIE-Bench does "to avoid annotation errors in boundary".
    """
    mask = outcome.truth > 0.5
    if frame:
        mask[[0, -1]] = True
        mask[:, [0, -1]] = True
    return mask


def reference_picture(outcome: Outcome, reference: Reference) -> Image.Image:
    """The picture that the edited one is compared with."""
    return outcome.case.truth_image if reference == "target" else outcome.case.request.image


def _has_text(outcome: Outcome, which: str) -> bool:
    captions = outcome.case.request.captions
    return captions is not None and bool(getattr(captions, which).strip())
