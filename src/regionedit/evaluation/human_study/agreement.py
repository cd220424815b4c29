"""Agreement between raters: Krippendorff's alpha with a bootstrap interval, Fleiss' kappa.

Ratings are stored as counts [U, C]: how many raters gave unit u the category c. Both coefficients need only these;
missing ratings are not counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal"]
RESAMPLES = 1000


def krippendorff_alpha(
    ratings: Iterable[tuple[Hashable, Hashable, Hashable]], categories: Sequence[Hashable], level: Level
) -> float | None:
    """Krippendorff's alpha, by nltk; units with a single rating do not count.

    The ordinal distance of categories c < k is the square of n_c / 2 + n_(c+1) + ... + n_(k-1) + n_k / 2, where n_c is
    the number of pairable ratings of category c (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).

    Args:
        ratings: (rater, unit, category).
        categories: all of them, in order.

    Returns:
        At most 1; None if alpha is undefined: no unit has two ratings, or all ratings are equal.
    """
    from nltk.metrics.agreement import AnnotationTask
    from nltk.metrics.distance import binary_distance

    by_unit: dict[Hashable, list[tuple]] = {}
    for rating in ratings:
        by_unit.setdefault(rating[1], []).append(rating)
    pairable = [rating for unit in by_unit.values() if len(unit) > 1 for rating in unit]
    n = np.array([sum(value == category for _, _, value in pairable) for category in categories])
    if (n > 0).sum() < 2:
        return None
    distances = _distances(n, "ordinal")
    place = {category: i for i, category in enumerate(categories)}

    def ordinal_distance(a: Hashable, b: Hashable) -> float:
        return float(distances[place[a], place[b]])

    distance = ordinal_distance if level == "ordinal" else binary_distance
    return float(AnnotationTask(pairable, distance=distance).alpha())


def count_ratings(
    ratings: Iterable[tuple[Hashable, Hashable, Hashable]], categories: Sequence[Hashable]
) -> tuple[list[Hashable], np.ndarray]:
    """The units in order of appearance and their counts [U, C], from (rater, unit, category)."""
    place = {category: i for i, category in enumerate(categories)}
    rows: dict[Hashable, np.ndarray] = {}
    for _, unit, value in ratings:
        rows.setdefault(unit, np.zeros(len(categories), np.int64))[place[value]] += 1
    return list(rows), np.array([*rows.values()]).reshape(len(rows), len(categories))


def coincidences(counts_UC: np.ndarray) -> np.ndarray:
    """Each unit's coincidence matrix [U, C, C]: its ordered pairs of ratings, divided by its number of ratings - 1."""
    n = counts_UC.astype(float)
    pairs = n[:, :, None] * n[:, None, :] - n[:, :, None] * np.eye(n.shape[1])
    others = n.sum(1) - 1
    return np.where(others > 0, 1 / np.where(others > 0, others, 1), 0)[:, None, None] * pairs


def alpha_of_coincidences(coincidences_RCC: np.ndarray, level: Level) -> np.ndarray:
    """Krippendorff's alpha of coincidence matrices [R, C, C], summed over units; NaN where it is undefined."""
    n = coincidences_RCC.sum(-1)
    distances = _distances(n, level)
    observed = (coincidences_RCC * distances).sum((-2, -1))
    expected = (n[:, :, None] * n[:, None, :] * distances).sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 1e-9, 1 - (n.sum(-1) - 1) * observed / expected, np.nan)


def alpha_interval(
    counts_UC: np.ndarray, items: Sequence[Hashable], level: Level, rng: np.random.Generator
) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of alpha over resampled items; (None, None) if fewer than two items have two ratings.

    Args:
        items: the item of each unit; units of the same item are drawn together.
    """
    each_UCC = coincidences(counts_UC)
    names = list(dict.fromkeys(items))
    sums = np.zeros((len(names), *each_UCC.shape[1:]))
    np.add.at(sums, [names.index(item) for item in items], each_UCC)
    sums = sums[sums.sum((1, 2)) > 0]
    if len(sums) < 2:
        return None, None
    draws_RI = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    alphas = alpha_of_coincidences(np.tensordot(draws_RI, sums, 1), level)
    alphas = alphas[~np.isnan(alphas)]  # alpha is undefined for a resample without variation
    return percentiles(alphas) if len(alphas) else (None, None)


def percentiles(resampled: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def fleiss_kappa(counts_UC: np.ndarray) -> tuple[float | None, int, int]:
    """Fleiss' kappa, by statsmodels. It needs equal numbers of ratings and uses the units with the most common number.

    Returns:
        Kappa (None if undefined: all ratings equal, or no unit with two), the number of units used, and the number of
        ratings of each.
    """
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    numbers = counts_UC.sum(1)
    common = np.bincount(numbers[numbers > 1]) if (numbers > 1).any() else np.zeros(1, int)
    ratings = int(len(common) - 1 - common[::-1].argmax())  # of equally common numbers the largest
    table = counts_UC[numbers == ratings] if ratings > 1 else counts_UC[:0]
    if (table.sum(0) > 0).sum() < 2:
        return None, len(table), ratings
    return float(kappa(table)), len(table), ratings


def _distances(n: np.ndarray, level: Level) -> np.ndarray:
    """Squared distances [..., C, C] of categories with n [..., C] ratings each."""
    if level == "nominal":
        return 1 - np.eye(n.shape[-1])
    # The sum from c to k, minus half of both ends, is the difference of the categories' mid-ranks.
    ranks = np.cumsum(n, -1) - n / 2
    return (ranks[..., :, None] - ranks[..., None, :]) ** 2
