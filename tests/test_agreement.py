"""Agreement between raters, against textbook values, values computed by hand and nltk; bootstrap intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from nltk.metrics.agreement import AnnotationTask

from regionedit.evaluation.human_study import agreement
from regionedit.evaluation.human_study.agreement import fleiss_kappa, share

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: four observers, twelve units, missing values.
TEXTBOOK = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def counts(rows) -> np.ndarray:
    """Counts [U, 5] of ratings 1 to 5; a row for each rater, a column for each unit."""
    return np.array([[unit.count(str(value)) for value in range(1, 6)] for unit in zip(*rows, strict=True)])


def alpha(counts_UC: np.ndarray, level: str) -> float | None:
    return agreement.alpha(counts_UC, range(len(counts_UC)), level, np.random.default_rng(0))["value"]


def test_alpha_equals_the_textbook_value():
    """The 9, 13, 10, 5, 3 pairable values have midranks 4.5, 15.5, 27, 34.5, 38.5; summed by hand over pairs c < k."""
    counts_UC = counts(TEXTBOOK)
    assert alpha(counts_UC, "nominal") == pytest.approx(1 - 39 * 8 / 1216, abs=1e-6)
    assert alpha(counts_UC, "ordinal") == pytest.approx(1 - 39 * 945.5 / 199740, abs=1e-6)


def test_alpha_needs_variation_and_two_ratings():
    assert alpha(counts(["33", "33"]), "ordinal") is None is alpha(counts(["1.", ".5"]), "ordinal")
    assert alpha(counts(["12.4", "12.5", "...."]), "nominal") < 1 == alpha(counts(["15", "15"]), "ordinal")


@examples(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=9),
    st.sampled_from(["nominal", "ordinal"]),
)
def test_alpha_equals_nltks(units, level):
    """Four ratings of each unit, 0 for a missing one; the distances are summed as Krippendorff's formula says."""
    pairable = [unit for unit in units if sum(value > 0 for value in unit) > 1]
    values = [value for unit in pairable for value in unit if value]
    n = [values.count(value) for value in range(6)]
    found = alpha(np.array([[unit.count(value) for value in range(1, 6)] for unit in units]), level)
    if len({*values}) < 2:
        assert found is None
        return

    def distance(a: int, b: int) -> float:
        low, high = sorted((a, b))
        return float(a != b) if level == "nominal" else (sum(n[low : high + 1]) - (n[low] + n[high]) / 2) ** 2

    data = [(rater, i, value) for i, unit in enumerate(pairable) for rater, value in enumerate(unit) if value]
    assert found == pytest.approx(AnnotationTask(data, distance=distance).alpha(), abs=1e-9)


def test_the_interval_resamples_whole_items():
    counts_UC = counts(TEXTBOOK)

    def interval(counts_UC, items, level="ordinal"):
        found = agreement.alpha(counts_UC, items, level, np.random.default_rng(0))
        return found["low"], found["high"]

    low, high = interval(counts_UC, range(12))
    assert low < 0.815 < high <= 1 and (low, high) == interval(counts_UC, range(12))
    assert interval(counts_UC, [0] * 12) == (None, None)
    # Listing every unit twice under its item leaves the sample of items as it is; as separate items, it doubles.
    twice = np.concatenate([counts_UC, counts_UC])
    grouped, apart = interval(twice, [*range(12)] * 2, "nominal"), interval(twice, range(24), "nominal")
    assert apart[1] - apart[0] < 0.85 * (grouped[1] - grouped[0])
    assert interval(np.eye(5, dtype=int) * 3, range(5)) == (1, 1)


def test_kappa_equals_the_textbook_value():
    """The usual example after Fleiss (1971): 14 raters, 10 subjects, 5 categories."""
    table = """0 0 0 0 14  0 2 6 4 2  0 0 3 5 6  0 3 9 2 0  2 2 8 1 1
               7 7 0 0 0  3 2 6 3 0  2 5 3 2 2  6 5 2 1 0  0 2 2 3 7"""
    counts_UC = np.array(table.split(), int).reshape(10, 5)
    kappa = fleiss_kappa(counts_UC)
    assert round(kappa["value"], 3) == 0.210 and (kappa["units"], kappa["ratings"]) == (10, 14)
    with_gaps = np.concatenate([counts_UC, [[5, 0, 0, 0, 0], [0, 0, 0, 0, 1]]])
    assert fleiss_kappa(with_gaps) == kappa, "units with fewer ratings cannot count"
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])) == {"value": None, "units": 2, "ratings": 3}
    assert fleiss_kappa(np.array([[1, 0], [0, 1]])) == {"value": None, "units": 0, "ratings": 0}


def test_a_share_has_wilsons_interval():
    """8 of 10, z = 1.959964: (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10)."""
    found = share([True] * 8 + [False] * 2)
    assert (found["share"], found["count"], found["n"]) == (0.8, 8, 10)
    assert found["low"] == pytest.approx(0.490162, abs=1e-6) and found["high"] == pytest.approx(0.943318, abs=1e-6)
    assert share([])["share"] is None
