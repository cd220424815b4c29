"""Metrics from the stored answers of a vision-language model; see `judge`."""

from __future__ import annotations

from dataclasses import dataclass

from regionedit.config import EvaluateConfig
from regionedit.evaluation.judge import Judge
from regionedit.evaluation.metrics import NAN, CaseMetric, Measure, Settings
from regionedit.evaluation.outcomes import Outcome

UNANSWERED = "unanswered"
OR_ZERO = "overall or zero"


@dataclass(frozen=True, kw_only=True)
class Judged(Measure):
    """A score that a judge gives; NaN for cases without stored answers.

    Args:
        rubric: key of RUBRICS.
        part: `overall` or another part of the rubric's scores, NaN without a readable answer to every question;
            UNANSWERED: 1 for such a case, else 0; OR_ZERO: `overall`, and 0 for such a case.
    """

    rubric: str
    part: str
    needs: tuple[str, ...] = ("answers of a judge",)

    def from_config(self, config: EvaluateConfig) -> CaseMetric:
        return self.metric(Settings(judge=Judge.from_config(config.vlm_judge, self.rubric)))

    def lacks(self, outcome: Outcome, settings: Settings) -> str | None:
        answered = settings.judge is not None and settings.judge.scores(outcome) is not None
        return super().lacks(outcome, settings) or (None if answered else "answers of this judge about this picture")

    def score(self, outcome: Outcome, settings: Settings) -> float:
        scores = settings.judge.scores(outcome)
        if self.part == UNANSWERED:
            return float(not scores)
        if self.part == OR_ZERO:
            return scores.get("overall", 0.0)
        return scores.get(self.part, NAN)
