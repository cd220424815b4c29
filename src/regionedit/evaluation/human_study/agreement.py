"""Agreement between raters: Krippendorff's alpha, Fleiss' kappa, and 95 % intervals; undefined values are None.

Ratings are stored as counts [U, C]: how many raters gave unit u the category c. nltk's alpha is too slow to resample.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pandas as pd
from numpy.random import Generator

from regionedit.evaluation.scoring import RESAMPLES


def alpha(counts_UC: np.ndarray, items: Sequence[Hashable], level: str, rng: Generator) -> dict:
    """Krippendorff's alpha, `{level, value, low, high}`; units of the same item are drawn together for the interval."""
    # Each unit's coincidence matrix: its ordered pairs of ratings, divided by its number of ratings - 1.
    n_UC = counts_UC.astype(float)
    pairs_UCC = n_UC[:, :, None] * (n_UC[:, None, :] - np.eye(n_UC.shape[1]))
    pairs_UCC /= np.maximum(n_UC.sum(1) - 1, 1)[:, None, None]
    places, names = pd.factorize(np.asarray(items))
    sums_ICC = np.zeros((len(names), *pairs_UCC.shape[1:]))
    np.add.at(sums_ICC, places, pairs_UCC)
    value = float(_alpha(pairs_UCC.sum(0), level))
    low, high = resampled_interval(sums_ICC[sums_ICC.any((1, 2))], lambda sums: _alpha(sums, level), rng)
    return {"level": level, "value": None if np.isnan(value) else value, "low": low, "high": high}


def _alpha(coincidences_RCC: np.ndarray, level: str) -> np.ndarray:
    """Alpha [...] of coincidence matrices [..., C, C]; NaN if no unit has two ratings, or all ratings are equal.

    Ordinal categories are as far apart as their mid-ranks, squared (Krippendorff 2011, Computing Krippendorff's Alpha).
    """
    n_RC = coincidences_RCC.sum(-1)
    distances = 1 - np.eye(n_RC.shape[-1])
    if level == "ordinal":
        ranks_RC = np.cumsum(n_RC, -1) - n_RC / 2
        distances = (ranks_RC[..., :, None] - ranks_RC[..., None, :]) ** 2
    observed_R = (coincidences_RCC * distances).sum((-2, -1))
    expected_R = (n_RC[..., :, None] * n_RC[..., None, :] * distances).sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected_R > 1e-9, 1 - (n_RC.sum(-1) - 1) * observed_R / expected_R, np.nan)


def resampled_interval(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], rng: Generator) -> tuple:
    """The percentile interval over resampled items, which contribute `sums` [I, ...]; undefined with fewer than two.

    `statistic` maps sums [R, ...] of R resamples to [R]; NaN is left out. With a NaN, scipy's bootstrap is undefined.
    """
    if len(sums) < 2:
        return None, None
    draws_RI = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    values_R = statistic(np.tensordot(draws_RI, sums, 1))
    values_R = values_R[~np.isnan(values_R)]
    return tuple(np.quantile(values_R, [0.025, 0.975]).tolist()) if len(values_R) else (None, None)


def fleiss_kappa(counts_UC: np.ndarray) -> dict:
    """Fleiss' kappa, `{value, units, ratings}`, of the units with the most common (and largest) number of ratings."""
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    numbers = counts_UC.sum(1)
    ratings = max(numbers[numbers > 1].tolist(), key=lambda n: ((numbers == n).sum(), n), default=0)
    table = counts_UC[(numbers == ratings) & (numbers > 1)]
    value = float(kappa(table)) if (table.sum(0) > 0).sum() > 1 else None
    return {"value": value, "units": len(table), "ratings": ratings}


def share(hits: Sequence[bool]) -> dict:
    """A share with Wilson's interval: `{share, low, high, count, n}`."""
    from statsmodels.stats.proportion import proportion_confint

    count, n = int(np.sum(hits)), len(hits)
    low, high = map(float, proportion_confint(count, n, 0.05, "wilson")) if n else (None, None)
    return {"share": count / n if n else None, "low": low, "high": high, "count": count, "n": n}
