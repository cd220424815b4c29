"""Agreement between raters, against textbook values and values computed by hand; bootstrap intervals."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from regionedit.evaluation.human_study.agreement import (
    alpha_interval,
    alpha_of_coincidences,
    coincidences,
    count_ratings,
    fleiss_kappa,
    krippendorff_alpha,
)
from regionedit.evaluation.human_study.biases import wilson
from regionedit.evaluation.human_study.questions import SCALE

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: four observers, twelve units, missing values.
TEXTBOOK = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def ratings(rows) -> list[tuple]:
    return [(r, u, int(v)) for r, row in enumerate(rows) for u, v in enumerate(row) if v != "."]


def test_alpha_equals_the_textbook_value():
    """The 9, 13, 10, 5, 3 pairable values have midranks 4.5, 15.5, 27, 34.5, 38.5; summed by hand over pairs c < k."""
    data = ratings(TEXTBOOK)
    assert len(data) == 41
    assert krippendorff_alpha(data, SCALE, "nominal") == pytest.approx(1 - 39 * 8 / 1216, abs=1e-6)
    assert krippendorff_alpha(data, SCALE, "ordinal") == pytest.approx(1 - 39 * 945.5 / 199740, abs=1e-6)
    assert round(krippendorff_alpha(data, SCALE, "ordinal"), 3) == 0.815


def test_alpha_of_two_raters_by_hand():
    """Values 1 2, 2 2, 3 3: observed 2 * 4, expected 2 (3 * 4 + 6 * 6.25 + 2 * 20.25), n = 6."""
    assert krippendorff_alpha(ratings(["123", "223"]), SCALE, "ordinal") == pytest.approx(1 - 5 * 8 / 180, abs=1e-6)


def test_alpha_needs_variation_and_two_ratings():
    assert krippendorff_alpha(ratings(["33", "33"]), SCALE, "ordinal") is None
    assert krippendorff_alpha(ratings(["1.", ".5"]), SCALE, "ordinal") is None
    assert krippendorff_alpha(ratings(["12.4", "12.5", "...."]), SCALE[:5], "nominal") < 1
    assert krippendorff_alpha(ratings(["15", "15"]), SCALE, "ordinal") == 1


@examples(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=9),
    st.sampled_from(["nominal", "ordinal"]),
)
def test_alpha_inside_the_bootstrap_equals_krippendorff_alpha(rows, level):
    data = [(rater, unit, value) for unit, row in enumerate(rows) for rater, value in enumerate(row) if value]
    expected = krippendorff_alpha(data, SCALE, level)
    _, counts_UC = count_ratings(data, SCALE)
    found = alpha_of_coincidences(coincidences(counts_UC).sum(0)[None], level)[0]
    assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-9)


def test_the_interval_resamples_whole_items():
    units, counts_UC = count_ratings(ratings(TEXTBOOK), SCALE)
    low, high = alpha_interval(counts_UC, units, "ordinal", np.random.default_rng(0))
    assert low < 0.815 < high <= 1
    assert (low, high) == alpha_interval(counts_UC, units, "ordinal", np.random.default_rng(0))
    assert alpha_interval(counts_UC, [0] * len(units), "ordinal", np.random.default_rng(0)) == (None, None)
    # Listing every unit twice under its item leaves the sample of items as it is; as separate items, it doubles.
    twice = np.concatenate([counts_UC, counts_UC])
    grouped = alpha_interval(twice, units * 2, "nominal", np.random.default_rng(0))
    apart = alpha_interval(twice, range(2 * len(units)), "nominal", np.random.default_rng(0))
    assert apart[1] - apart[0] < 0.85 * (grouped[1] - grouped[0])
    perfect = np.eye(5, dtype=int) * 3
    assert alpha_interval(perfect, range(5), "ordinal", np.random.default_rng(0)) == (1, 1)


def test_a_study_of_usual_size_is_bootstrapped_within_ten_seconds():
    rng = np.random.default_rng(0)
    data = [(rater, case, int(rng.integers(1, 6))) for case in range(50) for rater in range(15)]
    units, counts_UC = count_ratings(data, SCALE)
    start = time.perf_counter()
    krippendorff_alpha(data, SCALE, "ordinal")
    low, high = alpha_interval(counts_UC, units, "ordinal", rng)
    assert time.perf_counter() - start < 10
    assert -0.1 < low < 0.05 and -0.05 < high < 0.1


def test_kappa_equals_the_textbook_value():
    """The usual example after Fleiss (1971): 14 raters, 10 subjects, 5 categories."""
    table = """0 0 0 0 14  0 2 6 4 2  0 0 3 5 6  0 3 9 2 0  2 2 8 1 1
               7 7 0 0 0  3 2 6 3 0  2 5 3 2 2  6 5 2 1 0  0 2 2 3 7"""
    counts_UC = np.array(table.split(), int).reshape(10, 5)
    value, units, per_unit = fleiss_kappa(counts_UC)
    assert round(value, 3) == 0.210 and (units, per_unit) == (10, 14)
    with_gaps = np.concatenate([counts_UC, [[5, 0, 0, 0, 0], [0, 0, 0, 0, 1]]])
    assert fleiss_kappa(with_gaps) == (value, 10, 14), "units with fewer ratings cannot count"
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])) == (None, 2, 3)
    assert fleiss_kappa(np.array([[1, 0], [0, 1]])) == (None, 0, 0)


def test_a_share_has_wilsons_interval():
    """8 of 10, z = 1.959964: (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10)."""
    share = wilson(8, 10)
    assert (share["share"], share["count"], share["n"]) == (0.8, 8, 10)
    assert share["low"] == pytest.approx(0.490162, abs=1e-6) and share["high"] == pytest.approx(0.943318, abs=1e-6)
    assert wilson(0, 0)["share"] is None
