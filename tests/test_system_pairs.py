"""Differences between compared systems, case by case, and PickScore as a soft max over them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import binomtest

from regionedit.evaluation.comparison_tables import Difference
from regionedit.evaluation.scoring import interval
from tests.evaluation_folders import A, B, cells, evaluation, scores, shown

pytestmark = pytest.mark.usefixtures("place")


def test_paired_differences_are_over_the_cases_in_both(place):
    values = A | {"clip_direction": [0.1, 0.2, np.nan, 0.4]}
    folders = [evaluation(place / "ours", values), evaluation(place / "theirs", B)]
    table = shown(*folders, paired=True).tables[1]
    expected = interval(np.array(A["l1"]) - np.array(B["l1"]))
    assert [row[:4] for row in table.rows] == [
        ("ours − theirs", "CLIPdir", "3", "+0.1000"),
        ("ours − theirs", "L1", "4", "+0.0250"),
        ("ours − theirs", "DINO", "4", "+0.0250"),
    ]
    assert table.rows[1][4] == f"[{expected['low']:+.4f}, {expected['high']:+.4f}]"
    assert expected["low"] > 0 and not table.best  # four cases are too few to be clear


@pytest.mark.parametrize("n", [1, 5, 6, 40])
def test_a_difference_is_clear_only_if_a_sign_test_could_be(n):
    assert Difference("a", "b", "L1", interval(np.full(n, 0.1))).clear == (binomtest(n, n).pvalue < 0.05)
    around_zero = np.tile([-0.1, 0.1], n)
    assert not Difference("a", "b", "L1", interval(around_zero)).clear


def test_three_systems_make_three_pairs(place, both):
    third = evaluation(place / "third", B)
    table = shown(*both, third, paired=True).tables[1]
    assert list(dict.fromkeys(row[0] for row in table.rows)) == ["ours − theirs", "ours − third", "theirs − third"]
    assert table.rules == {3, 6}


def test_paired_differences_need_rows_and_two_systems(place, both):
    with pytest.raises(ValueError, match="two evaluations"):
        shown(both[0], paired=True)
    bare = evaluation(place / "bare", A, rows=False)
    with pytest.raises(ValueError, match="^bare: .* has no cases.parquet"):
        shown(both[0], bare, paired=True)
    assert len(shown(both[0], bare).tables[0].rows) == 2  # the means alone need no rows


def test_headline_metrics_are_paired_over_the_headline_operations(place):
    folders = []
    for name, far in (("ours", 1.0), ("theirs", 0.0)):
        columns = {"IoU": "region_iou"}
        values = {"region_iou": [0.6, 0.6, far, far]}
        folder = evaluation(place / name, values, headline_operations=["add"], columns=columns)
        rows = pd.read_parquet(folder / "cases.parquet").assign(operation=["add", "add", "remove", "remove"])
        rows.to_parquet(folder / "cases.parquet")
        folders.append(folder)
    (row,) = shown(*folders, paired=True).tables[1].rows
    assert row == ("ours − theirs", "IoU", "2", "+0.0000", "[+0.0000, +0.0000]")


PICKS = {"ours": [20.0, 21.0, 22.0, 23.0], "theirs": [20.0, 20.0, 23.0, 22.0], "third": [19.0, 20.0, 21.0, 22.0]}
PICK_COLUMNS = {"PickScore": "pick_score", "L1": "l1"}


def picked(place: Path, names, **changes) -> list[Path]:
    values = {name: {"pick_score": PICKS[name], "l1": A["l1"]} for name in names}
    return [evaluation(place / name, v, columns=PICK_COLUMNS, **changes) for name, v in values.items()]


def test_pick_score_is_a_soft_max_over_the_compared_systems(place):
    table = shown(*picked(place, PICKS)).tables[0]
    by_hand = softmax(np.array(list(PICKS.values())), axis=0).mean(1)
    means = [float(row["PickScore ↑"].split(" ")[0]) for row in cells(table).values()]
    assert means == pytest.approx(by_hand, abs=5e-5) and sum(means) == pytest.approx(1, abs=2e-4)
    assert "over these 3 systems in 4 cases; chance is 0.333" in table.note


def test_pick_scores_of_pairs_are_won_lost_or_drawn(place):
    tables = {table.title: cells(table) for table in shown(*picked(place, ("ours", "theirs"))).tables}
    (pair,) = tables["PickScore, pairs"].values()
    assert pair["wins"].startswith("0.6250")  # two won, one lost, one draw that counts half
    assert pair["preferred"].startswith(f"{(0.5 + 2 / (1 + np.exp(-1)) + 1 / (1 + np.e)) / 4:.4f}")


def test_one_system_alone_has_no_pick_score_and_the_table_says_so(place):
    table = shown(*picked(place, ("ours",))).tables[0]
    assert "PickScore ↑" not in table.heads and "PickScore: not shown" in table.note


def test_a_case_without_a_score_of_every_system_is_out_of_the_soft_max(place):
    folders = picked(place, ("ours", "theirs"))
    rows = pd.read_parquet(folders[0] / "cases.parquet")
    rows.loc[0, "pick_score"] = np.nan
    rows.to_parquet(folders[0] / "cases.parquet")
    found = shown(*folders)
    assert "in 3 cases" in found.tables[0].note and found.rows[1].scores["PickScore"]["n"] == 3


def test_the_bounds_take_no_part_in_the_soft_max(place):
    metrics = scores({"pick_score": [25.0] * 4, "l1": A["l1"]})
    bounds = {"identity": {"title": "source copied", "n": 4, "failed": 0, "metrics": metrics}}
    table = shown(*picked(place, ("ours", "theirs"), baselines=bounds)).tables[0]
    assert cells(table)["source copied"]["PickScore ↑"] == ""
