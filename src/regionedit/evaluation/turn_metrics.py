"""Sessions of several turns: what has changed since the first picture, and how scores change from turn to turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regionedit.evaluation.metrics import NAN, Measure, Settings, pixels
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.scoring import FIRST, interval


@dataclass(frozen=True, kw_only=True)
class AccumulatedChange(Measure):
    """Mean absolute change from the session's first picture, in [0, 1], outside the true masks of all turns so far.

    NaN if the masks cover the whole picture.
    """

    higher_is_better: bool | None = False
    needs: tuple[str, ...] = ("masks of all turns so far",)

    def score(self, outcome: Outcome, settings: Settings) -> float:
        history = outcome.case.truth
        outside_HW = np.asarray(history.edited) < 128
        changed_HW = np.abs(pixels(outcome.picture, history.first.size) - pixels(history.first)).mean(-1)
        return float(changed_HW[outside_HW].mean()) if outside_HW.any() else NAN


def change_by_turn(rows: pd.DataFrame, metrics: Mapping[str, Measure]) -> dict[str, dict[str, dict]]:
    """How scores change from the first turn, over the sessions that have both turns.

    Args:
        rows: as `score_cases` makes them; those of a session have the id of its first turn in `first`.

    Returns:
        {operation of the later turn: {metric: mean of later minus first, with interval and n}}; {} without later turns.
    """
    if FIRST not in rows:
        return {}
    by_id = rows.set_index("id")
    later = by_id[(by_id[FIRST] != by_id.index) & by_id[FIRST].isin(by_id.index)]
    found = {}
    for turn, part in later.groupby("operation"):
        changes = {name: (part[name] - by_id.loc[part[FIRST], name].to_numpy()).dropna() for name in metrics}
        found[str(turn)] = {name: interval(change.to_numpy()) for name, change in changes.items() if len(change)}
    return found
