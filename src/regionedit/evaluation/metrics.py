"""Metrics of finished cases, torchmetrics style: `update` with outcomes, `compute` for the mean, `values` for the rows.

Every metric gives one number per case and NaN where it has no meaning (no region was found, nothing was added, the
captions do not differ); means leave NaN out and say how many cases they are over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from regionedit.config import EvaluateConfig
from regionedit.evaluation.judges import Dino, Judge, load_dino, load_judge
from regionedit.evaluation.outcomes import Outcome

NAN = float("nan")


class CaseMetric(Metric):
    """One number per case.

    Subclasses implement `score`. `of_region` metrics read the region and need no picture; `headline` metrics are
    averaged over the benchmark's headline operations alone; `title` is the column's head.
    """

    full_state_update = False
    of_region = False
    headline = False
    title = ""

    def __init__(self):
        super().__init__()
        self.add_state("cases", default=[], dist_reduce_fx="cat")

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        """The metric with what it takes from the configuration."""
        return cls()

    def score(self, outcome: Outcome) -> float:
        """The value of one finished case, NaN where it has none."""
        raise NotImplementedError

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Score these cases, in order."""
        ready = [o if self.of_region or o.picture is not None else None for o in outcomes]
        scores = [NAN if outcome is None else self.score(outcome) for outcome in ready]
        self.cases.append(torch.tensor(scores, dtype=torch.float64))

    def values(self) -> Tensor:
        """[n] float64, in the order of the updates."""
        return dim_zero_cat(self.cases)

    def compute(self) -> Tensor:
        """The mean over all cases that have a value."""
        return self.values().nanmean()


class L1(CaseMetric):
    """Mean absolute difference from the truly edited picture, in [0, 1]."""

    title = "L1"
    higher_is_better = False

    def score(self, outcome: Outcome) -> float:
        if outcome.case.truth_image is None:
            return NAN
        return float(np.abs(_pixels(outcome.picture) - _pixels(outcome.case.truth_image)).mean())


class OutsideChange(CaseMetric):
    """Mean absolute change of the pixels that neither the predicted nor the true region touches, in [0, 1].

    Exactly 0 for an editor that keeps its promise.
    """

    title = "outside"
    higher_is_better = False

    def score(self, outcome: Outcome) -> float:
        return _change(outcome, [outcome.mask, outcome.truth])


class OutsideTruthChange(CaseMetric):
    """Mean absolute change of the pixels that the true region does not touch: what was changed without need."""

    title = "outside truth"
    higher_is_better = False

    def score(self, outcome: Outcome) -> float:
        return NAN if outcome.truth is None else _change(outcome, [outcome.truth])


class ClipImage(CaseMetric):
    """Cosine of the judge's embeddings of the edited and the truly edited picture."""

    title = "CLIP img"
    higher_is_better = True

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(load_judge(config.judge))

    def score(self, outcome: Outcome) -> float:
        if outcome.case.truth_image is None:
            return NAN
        return float(self.judge.picture(outcome.picture) @ self.judge.picture(outcome.case.truth_image))


class ClipText(ClipImage):
    """Cosine of the judge's embeddings of the edited picture and the target caption."""

    title = "CLIP text"

    def score(self, outcome: Outcome) -> float:
        captions = outcome.case.request.captions
        if captions is None:
            return NAN
        return float(self.judge.picture(outcome.picture) @ self.judge.text(captions.target))


class ClipDirection(ClipImage):
    """Cosine between the change of the picture and the change of the captions, differences of normalised embeddings.

    A picture that did not change scores 0; captions that do not differ have no direction: NaN.
    """

    title = "CLIP dir."

    def score(self, outcome: Outcome) -> float:
        captions = outcome.case.request.captions
        if captions is None or captions.source.strip().lower() == captions.target.strip().lower():
            return NAN
        seen = self.judge.picture(outcome.picture) - self.judge.picture(outcome.case.request.image)
        told = self.judge.text(captions.target) - self.judge.text(captions.source)
        return float(torch.nn.functional.cosine_similarity(seen, told, dim=0))


class DinoSimilarity(CaseMetric):
    """Cosine of the ViT's class tokens of the edited and the truly edited picture."""

    title = "DINO"
    higher_is_better = True

    def __init__(self, dino: Dino):
        super().__init__()
        self.dino = dino

    @classmethod
    def from_config(cls, config: EvaluateConfig) -> CaseMetric:
        return cls(load_dino(config.dino))

    def score(self, outcome: Outcome) -> float:
        if outcome.case.truth_image is None:
            return NAN
        return float(self.dino.picture(outcome.picture) @ self.dino.picture(outcome.case.truth_image))


def _pixels(picture) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), np.float32) / 255


def _change(outcome: Outcome, regions: Sequence[np.ndarray | None]) -> float:
    """Mean absolute change where all regions are 0; NaN where they leave nothing."""
    change = np.abs(_pixels(outcome.picture) - _pixels(outcome.case.request.image)).mean(-1)
    outside = np.ones(change.shape, bool)
    for region in regions:
        outside &= True if region is None else region == 0
    return float(change[outside].mean()) if outside.any() else NAN
