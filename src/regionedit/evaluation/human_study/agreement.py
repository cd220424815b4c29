"""Agreement between raters: Krippendorff's alpha, Fleiss' kappa, and 95 % intervals.

Ratings are stored as counts [U, C]: how many raters gave unit u the category c. Both coefficients need only these;
missing ratings are not counted. Undefined values are None.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from regionedit.evaluation.scoring import RESAMPLES

Level = Literal["nominal", "ordinal"]
Interval = tuple[float, float] | tuple[None, None]


def alpha(counts_UC: np.ndarray, items: Sequence[Hashable], level: Level, rng: np.random.Generator) -> dict:
    """Krippendorff's alpha, `{level, value, low, high}`; units of the same item are drawn together for the interval.

    nltk computes the same alpha, too slowly for thousands of resamples; statsmodels and scipy have none.
    """
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


def _alpha(coincidences_RCC: np.ndarray, level: Level) -> np.ndarray:
    """Alpha [...] of coincidence matrices [..., C, C]; NaN if no unit has two ratings, or all ratings are equal.

    The ordinal distance of categories c < k is the square of n_c / 2 + n_(c+1) + ... + n_(k-1) + n_k / 2, where n_c is
    the number of pairable ratings of category c (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).
    """
    n_RC = coincidences_RCC.sum(-1)
    distances = 1 - np.eye(n_RC.shape[-1])
    if level == "ordinal":  # the sum from c to k, minus half of both ends, is the difference of their mid-ranks
        ranks_RC = np.cumsum(n_RC, -1) - n_RC / 2
        distances = (ranks_RC[..., :, None] - ranks_RC[..., None, :]) ** 2
    observed_R = (coincidences_RCC * distances).sum((-2, -1))
    expected_R = (n_RC[..., :, None] * n_RC[..., None, :] * distances).sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected_R > 1e-9, 1 - (n_RC.sum(-1) - 1) * observed_R / expected_R, np.nan)


def resampled_interval(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> Interval:
    """The percentile interval over resampled items; undefined with fewer than two.

    scipy's bootstrap is undefined as soon as one resample is.

    Args:
        sums: [I, ...], what each item contributes.
        statistic: maps the sums of R resamples [R, ...] to values [R], NaN where it is undefined.
    """
    if len(sums) < 2:
        return None, None
    draws_RI = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    values_R = statistic(np.tensordot(draws_RI, sums, 1))
    values_R = values_R[~np.isnan(values_R)]
    return tuple(np.quantile(values_R, [0.025, 0.975]).tolist()) if len(values_R) else (None, None)


def fleiss_kappa(counts_UC: np.ndarray) -> dict:
    """Fleiss' kappa, `{value, units, ratings}`, of the units with the most common number of ratings, two or more.

    It needs equal numbers of ratings; of equally common numbers it takes the largest.
    """
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    numbers_U = counts_UC.sum(1)
    ratings = int(pd.Series(numbers_U[numbers_U > 1]).mode().max()) if (numbers_U > 1).any() else 0
    table = counts_UC[(numbers_U == ratings) & (numbers_U > 1)]
    value = float(kappa(table)) if (table.sum(0) > 0).sum() > 1 else None
    return {"value": value, "units": len(table), "ratings": ratings}


def share(hits: Sequence[bool]) -> dict:
    """A share with Wilson's interval: `{share, low, high, count, n}`."""
    from statsmodels.stats.proportion import proportion_confint

    count, n = int(np.sum(hits)), len(hits)
    if not n:
        return {"share": None, "low": None, "high": None, "count": 0, "n": 0}
    low, high = proportion_confint(count, n, 0.05, "wilson")
    return {"share": count / n, "low": float(low), "high": float(high), "count": count, "n": n}
