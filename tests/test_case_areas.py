"""Cases by the share of the picture that the true mask covers."""

import pandas as pd
import pytest

from regionedit.evaluation.metrics import NAN
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.scoring import AREA, area_of, groups_of, score_cases
from regionedit.records import EditCase
from tests.metric_cases import case, flat, mask, plain


def covered(rows: int) -> EditCase:
    """A case of 100 x 100 pixels whose mask covers the first rows."""
    return case(flat(0, 100), truth_mask=mask((0, 0, 100, rows), 100, 100))


@pytest.mark.parametrize(
    ("rows", "group"),
    [(1, "1-10 %"), (9, "1-10 %"), (10, "10-30 %"), (29, "10-30 %"), (30, "30-100 %"), (100, "30-100 %")],
)
def test_a_share_has_its_group(rows, group):
    assert area_of(covered(rows)) == group


def test_tiny_empty_and_missing_masks_have_groups_of_their_own():
    assert area_of(case(flat(0, 100), truth_mask=mask((0, 0, 99, 1), 100, 100))) == "0-1 %"
    assert area_of(case(flat(0, 8), truth_mask=mask(None))) == "0 %"
    assert area_of(case(flat(0, 8))) == "no mask"


def test_the_group_is_in_every_row_and_shown_only_if_a_case_has_a_mask():
    cases = [covered(5), case(flat(0))]
    metrics = {"l1_source": plain("l1_source")}
    rows = score_cases(lambda chosen: (Outcome(c, c.request.image) for c in chosen), cases, metrics, "", 2)
    assert rows[AREA].tolist() == ["1-10 %", "no mask"] and groups_of(rows, ["seen"]) == ["seen", AREA]
    assert groups_of(pd.DataFrame({AREA: ["no mask"], "l1_source": [NAN]}), []) == []
