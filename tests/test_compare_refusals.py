"""Evaluations that are not comparable are refused, and the message names every difference."""

from pathlib import Path

import pytest

from regionedit.evaluation.compare import compare, main
from regionedit.evaluation.finished_evaluations import NOT_COMPARED, Evaluation, differences, read_evaluations
from regionedit.evaluation.protocols import Protocol
from tests.evaluation_folders import PROTOCOL, A, B, evaluation, shown

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"judge": "L/14"}, "judge: 'B/32' in ours, 'L/14' in theirs (columns: CLIPdir)"),
        ({"dino": "vitb8"}, "dino: 'vits16' in ours, 'vitb8' in theirs (columns: DINO)"),
        ({"reference": "target"}, "reference: 'source' in ours, 'target' in theirs"),
        ({"caption_filter": "none"}, "caption_filter: 'identical' in ours, 'none' in theirs"),
        ({"resize": "nearest"}, "resize: 'bicubic' in ours, 'nearest' in theirs"),
        ({"counts": {"rows": 5, "kept": 3}}, "counts.kept: 4 in ours, 3 in theirs"),
        ({"as_run": {"split": "x"}}, "as_run.split: '5 rows' in ours, 'x' in theirs"),
        ({"n_found": 2}, "n_found: 4 in ours, 2 in theirs"),
        ({"name": "icedit"}, "name: 'ultraedit' in ours, 'icedit' in theirs"),
        ({"resize": None}, "resize: 'bicubic' in ours, nothing in theirs"),
        ({"benchmark": "other"}, "benchmark: 'emu_edit' in ours, 'other' in theirs"),
    ],
)
def test_a_different_protocol_block_is_refused_with_key_and_both_values(place, change, line, capsys):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, **change)]
    assert main([*map(str, folders), "--out", str(place / "out")]) == 2
    printed = capsys.readouterr()
    everywhere = "" if "(columns" in line else " (columns: CLIPdir, L1, DINO)"
    assert printed.err.splitlines() == [f"compare: not comparable: {line}{everywhere}"]
    assert printed.out == "" and not (place / "out").exists()


def test_every_difference_has_its_line(place, capsys):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, judge="L/14", dino="x", n_found=2)]
    assert main([*map(str, folders)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_another_network_matters_only_to_its_own_columns(place):
    """The systems share no column of the CLIP of the metrics, so that another CLIP does not matter."""
    only = {"l1": A["l1"], "dino": A["dino"]}
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", only, judge="L/14")]
    assert [row[0] for row in shown(*folders).tables[0].rows] == ["ours", "theirs"]


def test_the_grid_matters_to_scores_on_the_grid_alone(place):
    columns = {"IoU": "region_iou", "L1": "l1"}
    values = {"region_iou": [0.5] * 4, "l1": A["l1"]}
    folders = [evaluation(place / name, values, grid=grid) for name, grid in (("ours", 16), ("theirs", 8))]
    assert differences(read_evaluations(folders), columns) == ["grid: 16 in ours, 8 in theirs (columns: IoU)"]


def test_the_third_system_is_compared_as_well(place, both):
    third = evaluation(place / "third", A, dino="vitb8")
    lines = differences(read_evaluations([*both, third]), PROTOCOL["columns"])
    assert lines == ["dino: 'vits16' in theirs, 'vitb8' in third (columns: DINO)"]


def test_other_cases_are_refused_even_where_their_number_is_equal(place):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, ids=["0", "1", "2", "x"])]
    (line,) = differences(read_evaluations(folders), PROTOCOL["columns"])
    assert line.startswith("cases: 3 in both, 1 only in ours (3), 1 only in theirs (x)")


def test_differences_that_change_no_number_are_noted_and_not_refused(place):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, threshold=0.6)]
    note = shown(*folders).tables[0].note
    assert "threshold differs" in note and "0.5 in ours, 0.6 in theirs" in note
    assert all(reason for reason in NOT_COMPARED.values())


def test_a_named_protocol_must_have_been_followed(place, both, capsys):
    assert shown(*both, protocol=Protocol.read("ultraedit")).tables[0].heads[3] == "CLIPdir ↑"
    tiny = evaluation(place / "tiny", A, judge="tiny", n_found=2)
    assert main([str(tiny), "--protocol", "ultraedit"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "compare: not comparable: tiny: judge: 'tiny', not 'B/32', as protocol ultraedit has it",
        "compare: not comparable: tiny: n: 2 cases, not 4, as protocol ultraedit has it",
    ]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "summary.json: No such file"),
        (lambda folder: (folder / "summary.json").write_text("{"), "summary.json: not JSON"),
        (lambda folder: (folder / "summary.json").write_text("[]"), "lacks benchmark, protocol, n, failed, metrics"),
        (lambda folder: (folder / "summary.json").write_text('{"n": 1}'), "lacks benchmark, protocol, failed, metrics"),
        (lambda folder: (folder / "cases.parquet").write_text("x"), "cases.parquet: not the rows"),
    ],
)
def test_a_damaged_evaluation_is_named_in_one_line(both, spoil, said, capsys):
    spoil(both[1])
    assert main([*map(str, both)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare: error: ") and said in line


def test_an_evaluation_given_twice_is_named(both):
    with pytest.raises(ValueError, match="ours: given twice"):
        read_evaluations([both[0], both[0] / "summary.json"])


def test_an_unknown_protocol_and_columns_without_numbers_are_named(both, capsys):
    assert main([str(both[0]), "--protocol", "mine"]) == 2
    assert "there are: ultraedit" in capsys.readouterr().err
    with pytest.raises(ValueError, match="none of the columns was measured: X"):
        compare(read_evaluations(both), Protocol(**PROTOCOL | {"name": "ultraedit", "columns": {"X": "clip_text"}}))


JUDGE = {"model": "a", "revision": "2026-01-01", "prompt quality": "24"}
COLUMNS = {"L1": "l1", "landed IoU": "landed_iou", "VIE": "viescore"}


def with_facts(name: str, **facts) -> Evaluation:
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
    one = with_facts("one", vlm_judge=JUDGE, conventions={"landed": "x"})
    lines = differences([one, with_facts("other", **facts)], COLUMNS)
    assert [line.rpartition("(columns: ")[2] for line in lines] == ([] if columns is None else [f"{columns})"])
