"""Facts of a protocol block that matter for some metrics only: older results without them stay comparable."""

from pathlib import Path

import pytest

from regionedit.evaluation.finished_evaluations import Evaluation, differences

JUDGE = {"model": "a", "revision": "2026-01-01", "prompt quality": "24"}
COLUMNS = {"L1": "l1", "landed IoU": "landed_iou", "VIE": "viescore"}


def evaluation(name: str, **facts) -> Evaluation:
    score = {"mean": 0.5, "low": None, "high": None, "n": 1}
    metrics = dict.fromkeys(COLUMNS.values(), score)
    summary = {"benchmark": "gedit", "protocol": {"name": "none"} | facts, "metrics": metrics}
    return Evaluation(name, Path("nowhere"), summary)


@pytest.mark.parametrize(
    ("facts", "columns"),
    [
        ({"vlm_judge": JUDGE, "conventions": {"landed": "x"}}, None),
        ({"vlm_judge": JUDGE, "conventions": {"landed": "y"}}, "landed IoU"),
        ({"vlm_judge": JUDGE}, "landed IoU"),
        ({"vlm_judge": JUDGE | {"model": "b"}, "conventions": {"landed": "x"}}, "VIE"),
        ({"vlm_judge": JUDGE | {"revision": "unstated"}, "conventions": {"landed": "x"}}, "VIE"),
        ({"vlm_judge": JUDGE | {"prompt quality": "25"}, "conventions": {"landed": "x"}}, "VIE"),
    ],
)
def test_only_the_columns_that_a_fact_changes_are_refused(facts, columns):
    one = evaluation("one", vlm_judge=JUDGE, conventions={"landed": "x"})
    lines = differences([one, evaluation("other", **facts)], COLUMNS)
    assert [line.rpartition("(columns: ")[2] for line in lines] == ([] if columns is None else [f"{columns})"])
