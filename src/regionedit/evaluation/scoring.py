"""From finished cases to rows, and from rows to means with intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from rich.progress import track
from scipy.stats import bootstrap

from regionedit.evaluation.editing import chunks
from regionedit.evaluation.metrics import CaseMetric
from regionedit.evaluation.outcomes import Outcome

RESAMPLES = 1000
TOGETHER = 32  # cases whose pictures are open at one time


def score_cases(outcomes: Iterable[Outcome], metrics: Mapping[str, CaseMetric], title: str, total: int) -> pd.DataFrame:
    """Score finished cases; the metrics are left holding all of them.

    Returns:
        One row per case: id, instruction, operation, the case's groups, `failed` (a reason, or None), one column per
        metric (NaN where it has no value).
    """
    rows = []
    for together in track(chunks(outcomes, TOGETHER), title, total=-(-total // TOGETHER)):
        for metric in metrics.values():
            metric.update(together)
        for outcome in together:
            case = outcome.case
            words = {"instruction": case.request.instruction, "operation": case.operation}
            rows.append({"id": case.id} | words | case.groups | {"failed": outcome.failed})
    return pd.DataFrame(rows).assign(**{name: metric.values().numpy() for name, metric in metrics.items()})


def summarise(rows: pd.DataFrame, metrics: Mapping[str, CaseMetric], groups: Collection[str], headline: tuple) -> dict:
    """Means with 95 % bootstrap intervals, over all and by group.

    Metrics marked `headline` are taken over the headline operations, except where the table is by operation.

    Returns:
        {"n", "failed", "metrics": {name: {mean, low, high, n}}, "by": {group: {value: the same three keys}}}
    """
    named = rows["operation"].isin(headline)

    def block(part: pd.DataFrame, every_operation: bool) -> dict:
        scores = {}
        for name, metric in metrics.items():
            column = part[name] if every_operation or not metric.headline else part.loc[named, name]
            if column.notna().any():
                scores[name] = interval(column.dropna().to_numpy())
        return {"n": len(part), "failed": int(part["failed"].notna().sum()), "metrics": scores}

    by = {
        group: {str(value): block(part, group == "operation") for value, part in rows.groupby(group)}
        for group in ("operation", *groups)
    }
    return block(rows, False) | {"by": by}


def interval(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean and 95 % bootstrap interval of the values; one value has no interval."""
    found = {"mean": float(values.mean()), "low": None, "high": None, "n": len(values)}
    if len(values) < 2:
        return found
    if np.ptp(values) == 0:
        return found | {"low": found["mean"], "high": found["mean"]}
    made = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    low, high = made.confidence_interval
    return found | {"low": float(low), "high": float(high)}
