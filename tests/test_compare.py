"""Comparing evaluations: numbers computed differently never share a column, and every cell can be computed again."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.special import softmax

from regionedit.evaluation import BENCHMARKS, METRICS
from regionedit.evaluation.comparability import NOT_COMPARED, differences, read_evaluations
from regionedit.evaluation.compare import compare, main
from regionedit.evaluation.comparison import numbers
from regionedit.evaluation.export import latex, markdown, to_csv, to_latex, to_markdown, write_tables
from regionedit.evaluation.protocols import Protocol
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.system_pairs import soft_max
from regionedit.evaluation.tables import TextTable, by_group, comparison, evaluation_tables, print_table

PROTOCOL = {
    "benchmark": "emu_edit",
    "note": "as in a test",
    "backbones": {"judge": "B/32", "dino": "vits16"},
    "reference": "source",
    "caption_filter": "identical",
    "resize": "bicubic",
    "n": 4,
    "columns": {
        "CLIPdir": "clip_direction",
        "CLIPout": "clip_text",
        "L1": "l1",
        "CLIPimg": "clip_image",
        "DINO": "dino",
    },
    "unstated": {"CLIPdir": "normalised here"},
}
BLOCK = {
    "name": "ultraedit",
    "judge": "B/32",
    "dino": "vits16",
    "reference": "source",
    "caption_filter": "identical",
    "resize": "bicubic",
    "n_expected": 4,
    "n_found": 4,
    "counts": {"rows": 5, "kept": 4},
    "as_run": {"split": "5 rows"},
    "grid": 16,
    "threshold": 0.5,
    "headline_operations": [],
    "columns": PROTOCOL["columns"],
}
A = {"clip_direction": [0.1, 0.2, 0.3, 0.4], "l1": [0.02, 0.04, 0.06, 0.08], "dino": [0.9, 0.9, 0.9, 0.9]}
B = {"clip_direction": [0.1, 0.1, 0.2, 0.2], "l1": [0.01, 0.02, 0.03, 0.04], "dino": [0.8, 0.9, 0.9, 0.9]}
IDS = ["0", "1", "2", "3"]


def scores(values: dict[str, list]) -> dict:
    found = {name: np.array(column, float) for name, column in values.items()}
    return {name: interval(column[~np.isnan(column)]) for name, column in found.items()}


def evaluation(folder: Path, values: dict[str, list], ids=IDS, rows: bool = True, failed: int = 0, **changes) -> Path:
    """A folder as evaluate.py leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    baselines = changes.pop("baselines", {})
    benchmark = changes.pop("benchmark", "emu_edit")
    block = {key: value for key, value in (BLOCK | changes).items() if value is not None}
    summary = {"benchmark": benchmark, "protocol": block, "name": "learned", "n": len(ids), "failed": failed}
    summary |= {"metrics": scores(values), "by": {}, "baselines": baselines, "ceiling": None}
    (folder / "summary.json").write_text(json.dumps(summary))
    if rows:
        frame = pd.DataFrame({"id": ids, "operation": ["add"] * len(ids), "failed": [None] * len(ids)} | values)
        frame.to_parquet(folder / "cases.parquet")
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with the protocol `ultraedit`, whose columns have metrics that every version of METRICS has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BENCHMARKS, "emu_edit", BENCHMARKS["microworld"])
    monkeypatch.setitem(METRICS, "pick_score", METRICS["clip_text"])
    (tmp_path / "configs/protocols").mkdir(parents=True)
    (tmp_path / "configs/protocols/ultraedit.yaml").write_text(yaml.safe_dump(PROTOCOL, sort_keys=False))
    return tmp_path


@pytest.fixture
def both(place) -> list[Path]:
    return [evaluation(place / "ours", A), evaluation(place / "theirs", B)]


def shown(*folders, **options):
    return compare(read_evaluations(folders), **options)


def cells(table: TextTable) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table.heads[1:], row[1:], strict=True)) for row in table.rows}


# ------------------------------------------------------------------------------------------------ one table


def test_columns_stand_in_the_protocols_order_with_its_titles(both):
    table = shown(*both).tables[0]
    assert table.heads == ("system", "n", "failed", "CLIPdir ↑", "L1 ↓", "DINO ↑")
    assert "not measured: CLIPout, CLIPimg" in table.note


def test_cells_hold_the_mean_and_half_the_interval(both):
    ours = cells(shown(*both).tables[0])["ours"]
    score = interval(np.array(A["clip_direction"]))
    assert ours["CLIPdir ↑"] == f"0.2500 ±{(score['high'] - score['low']) / 2:.4f}"
    assert (ours["n"], ours["failed"]) == ("4", "0")


def test_the_best_is_the_highest_or_the_lowest_as_the_metric_wants(both):
    table = shown(*both).tables[0]
    assert table.best == {(0, 3), (1, 4), (0, 5)}  # CLIPdir: ours; L1, lower: theirs; DINO: ours


def test_one_system_alone_is_not_the_best_and_equals_share_it(place, both):
    assert not shown(both[0]).tables[0].best
    twin = evaluation(place / "twin", A)
    assert shown(both[0], twin).tables[0].best == {(row, place) for row in (0, 1) for place in (3, 4, 5)}


def test_copying_the_source_and_the_true_region_are_shown_once_and_never_best(place):
    perfect = {name: score | {"mean": 0.0 if name == "l1" else 1.0} for name, score in scores(A).items()}
    bounds = {
        "identity": {"title": "source copied", "n": 4, "failed": 0, "metrics": perfect},
        "truth": {"title": "true region (oracle)", "n": 4, "failed": 0, "metrics": perfect},
        "chance": {"title": "random box", "n": 4, "failed": 0, "metrics": perfect},
    }
    folders = [evaluation(place / name, v, baselines=bounds) for name, v in (("ours", A), ("theirs", B))]
    table = shown(*folders).tables[0]
    names = [row[0] for row in table.rows]
    oracles = ["ours: true region (oracle)", "theirs: true region (oracle)"]
    assert names == ["ours", "theirs", "source copied", *oracles]
    assert {row for row, _ in table.best} <= {0, 1} and table.rules == {2}


def test_the_csv_has_full_precision_and_can_be_computed_from_the_rows(both):
    found = shown(*both)
    frame = pd.read_csv(io.StringIO(numbers(found.rows, found.columns).to_csv(index=False)))
    rows = pd.read_parquet(both[0] / "cases.parquet")
    assert frame.loc[0, "L1"] == pytest.approx(rows["l1"].mean(), abs=1e-12)
    assert frame.loc[0, "L1 low"] < frame.loc[0, "L1"] < frame.loc[0, "L1 high"]
    assert frame["CLIPdir n"].tolist() == [4, 4] and frame["kind"].tolist() == ["measured"] * 2


def test_cases_without_a_value_are_told(place):
    values = A | {"clip_direction": [0.1, np.nan, 0.3, 0.4]}
    table = shown(evaluation(place / "ours", values, failed=0)).tables[0]
    assert "ours, CLIPdir: over 3 of 4 scored cases" in table.note
    failed = shown(evaluation(place / "failed", values, failed=1)).tables[0]
    assert "scored cases" not in failed.note and cells(failed)["failed"]["failed"] == "1"


def test_systems_are_named_by_folder_and_by_path_where_two_share_a_name(place):
    folders = [evaluation(place / name / "run", A) for name in ("a", "b")]
    assert [e.name for e in read_evaluations(folders)] == [str(f) for f in folders]
    (one,) = read_evaluations([folders[0] / "summary.json"])
    assert one.name == "run" and len(one.rows) == 4


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"judge": "L/14"}, "judge: 'B/32' in ours, 'L/14' in theirs (columns: CLIPdir)"),
        ({"dino": "vitb8"}, "dino: 'vits16' in ours, 'vitb8' in theirs (columns: DINO)"),
        ({"reference": "target"}, "reference: 'source' in ours, 'target' in theirs (columns: CLIPdir, L1, DINO)"),
        (
            {"caption_filter": "none"},
            "caption_filter: 'identical' in ours, 'none' in theirs (columns: CLIPdir, L1, DINO)",
        ),
        ({"resize": "nearest"}, "resize: 'bicubic' in ours, 'nearest' in theirs (columns: CLIPdir, L1, DINO)"),
        ({"counts": {"rows": 5, "kept": 3}}, "counts.kept: 4 in ours, 3 in theirs (columns: CLIPdir, L1, DINO)"),
        ({"as_run": {"split": "x"}}, "as_run.split: '5 rows' in ours, 'x' in theirs (columns: CLIPdir, L1, DINO)"),
        ({"n_found": 2}, "n_found: 4 in ours, 2 in theirs (columns: CLIPdir, L1, DINO)"),
        ({"name": "icedit"}, "name: 'ultraedit' in ours, 'icedit' in theirs (columns: CLIPdir, L1, DINO)"),
        ({"resize": None}, "resize: 'bicubic' in ours, nothing in theirs (columns: CLIPdir, L1, DINO)"),
        ({"benchmark": "other"}, "benchmark: 'emu_edit' in ours, 'other' in theirs (columns: CLIPdir, L1, DINO)"),
    ],
)
def test_a_different_block_is_refused_with_key_and_both_values(place, change, line, capsys):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, **change)]
    assert main([*map(str, folders), "--out", str(place / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"compare: not comparable: {line}"]
    assert printed.out == "" and not (place / "out").exists()


def test_every_difference_has_its_line(place, capsys):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, judge="L/14", dino="x", n_found=2)]
    assert main([*map(str, folders)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_another_network_matters_only_to_its_own_columns(place):
    """Nothing of the judge's is in both, so its name keeps neither out."""
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


def test_what_changes_no_number_is_told_and_not_refused(place):
    folders = [evaluation(place / "ours", A), evaluation(place / "theirs", B, threshold=0.6)]
    note = shown(*folders).tables[0].note
    assert "threshold differs" in note and "0.5 in ours, 0.6 in theirs" in note
    assert all(reason for reason in NOT_COMPARED.values())


def test_a_named_protocol_must_have_been_kept_to(place, both, capsys):
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


# ------------------------------------------------------------------------------------------------ published rows


def test_published_rows_of_the_protocol_stand_below_marked_as_quoted(both):
    table, *others = shown(*both, published=True).tables
    name = next(row[0] for row in table.rows if row[0].startswith("Learnable Regions (5M)"))
    assert name == "Learnable Regions (5M) [1]"
    assert cells(table)[name] == {"n": "", "failed": "", "CLIPdir ↑": "0.1088", "L1 ↓": "0.0723", "DINO ↑": "0.8337"}
    assert re.search(r"\[1\] quoted, not measured here: Ma et al.*Table 2", table.note)
    assert "not said by the protocol's authors, CLIPdir: normalised here" in table.note
    assert "printed, but not shown here: CLIPout, CLIPimg" in table.note
    assert table.rules == {2} and {row for row, _ in table.best} <= {0, 1}
    assert others and all("not comparable" in other.title and "ultraedit" not in other.title for other in others)
    kinds = [row.kind for row in shown(*both, published=True).rows]
    assert kinds[:2] == ["measured"] * 2 and set(kinds[2:]) == {"published"}


def test_no_published_row_stands_beside_numbers_of_tiny_networks(place):
    """The protocol's name alone does not make numbers comparable."""
    tables = shown(evaluation(place / "tiny", A, judge="tiny"), published=True).tables
    assert [row[0] for row in tables[0].rows] == ["tiny"]
    assert "no printed row compares" in tables[0].note and "tiny: judge: 'tiny', not 'B/32'" in tables[0].note
    assert any("(ultraedit), not comparable" in table.title for table in tables[1:])


def test_the_rows_of_other_protocols_are_listed_apart_under_their_own_titles(both):
    tables = {table.title: table for table in shown(*both, published=True).tables[1:]}
    (title,) = [title for title in tables if "In-Context Edit" in title]
    assert title.startswith("Other protocol (icedit), not comparable: ") and "second-hand" in title
    assert cells(tables[title])["ICEdit"] == {"CLIP-I": "0.907", "CLIP-Out": "0.305", "DINO": "0.866"}


def test_a_protocol_without_published_rows_says_so(place):
    folder = evaluation(place / "ours", A, name="none")
    assert "no printed row is known for protocol none" in shown(folder, published=True).tables[0].note


def test_an_impossible_figure_is_shown_as_printed_and_told(place, monkeypatch):
    columns = {"L1": "l1", "L2": "clip_text", "DINO": "dino"}
    protocol = PROTOCOL | {"benchmark": "magicbrush", "columns": columns, "unstated": {}}
    monkeypatch.setitem(BENCHMARKS, "magicbrush", BENCHMARKS["microworld"])
    (place / "configs/protocols/magicbrush.yaml").write_text(yaml.safe_dump(protocol, sort_keys=False))
    values = {"l1": A["l1"], "clip_text": A["l1"], "dino": A["dino"]}
    folder = evaluation(place / "o", values, name="magicbrush", benchmark="magicbrush", columns=columns)
    table = shown(folder, published=True).tables[0]
    (name,) = [row[0] for row in table.rows if row[0].startswith("RF-Solver")]
    assert "0.3120" in cells(table)[name].values() and "RF-Solver: impossible: L2 0.312" in table.note


# ------------------------------------------------------------------------------------------------ between systems


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
    assert table.best == {(1, 3)}  # the other two intervals hold 0


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
        folder = evaluation(place / name, {"region_iou": [0.6, 0.6, far, far]}, headline_operations=["add"])
        rows = pd.read_parquet(folder / "cases.parquet").assign(operation=["add", "add", "remove", "remove"])
        rows.to_parquet(folder / "cases.parquet")
        folders.append(folder)
    protocol_columns = {"IoU": "region_iou"}
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        summary["protocol"]["columns"] = protocol_columns
        (folder / "summary.json").write_text(json.dumps(summary))
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


@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=5))
def test_preferences_of_a_case_add_up_to_one(raw):
    found = soft_max(pd.DataFrame(raw, columns=["a", "b", "c"]))
    assert np.allclose(found.sum(axis=1), 1) and found.to_numpy().min() >= 0


# ------------------------------------------------------------------------------------------------ files


def test_the_command_writes_and_prints_everything(both, place, capsys):
    assert main([*map(str, both), "--out", str(place / "out"), "--published", "--paired"]) == 0
    printed = capsys.readouterr().out
    assert "ours" in printed and "Paired differences" in printed and "written: " in printed
    assert {file.name for file in (place / "out").iterdir()} == {"comparison.md", "comparison.tex", "comparison.csv"}
    assert "| **0.2500 ±" in (place / "out/comparison.md").read_text()
    frame = pd.read_csv(place / "out/comparison.csv")
    assert {"measured", "published"} == set(frame["kind"]) and frame["source"].notna().sum() == len(frame) - 2


HARD = "a_b & 50% | #1 {x} \\ ~ ^ <b> *s* [1] $5 `q`"
TABLE = TextTable(
    "By_hand", "n=4 & more", ("sys|tem", "L1 ↓"), (("[x] first", "0.1 ±0.2"), (HARD, "")), frozenset({(0, 1)})
)


def test_markdown_keeps_its_columns_whatever_a_cell_holds():
    lines = [line for line in to_markdown(TABLE).splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3, 3, 3, 3]
    assert "**0.1 ±0.2**" in lines[2] and r"\*s\*" in lines[3] and r"a\_b" in lines[3] and r"\<b>" in lines[3]


def test_latex_escapes_everything_that_it_would_read():
    text = to_latex(TABLE)
    assert r"a\_b \& 50\% $|$ \#1 \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} $<$b$>$" in text
    assert r"\$5" in text and r"\textbf{0.1 $\pm$0.2}" in text and r"L1 $\downarrow$" in text
    # A row that began with [ would be taken for the argument of the line break before it.
    assert "\n{[}x{]} first & " in text and r"\caption{By\_hand}" in text and r"\footnotesize n=4 \& more" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=2, max_size=2))
def test_any_cell_survives_the_csv_and_stays_in_its_place(row):
    table = TextTable("t", "", ("a", "b"), (tuple(row),))
    assert list(csv.reader(io.StringIO(to_csv(table), newline=""))) == [["a", "b"], row]
    (line,) = [x for x in to_latex(table).split("\n") if x.endswith(r"\\") and x != r"a & b \\"]
    assert len(re.findall(r"(?<!\\)&", line)) == 1
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", to_markdown(table).split("\n")[4])) == 3


def test_the_console_shows_brackets_as_they_are(capsys):
    print_table(TextTable("t [bold]", "[1] note", ("a", "b"), (("x [1]", "[0.1, 0.2]"),)), Console(width=80))
    printed = capsys.readouterr().out
    assert "x [1]" in printed and "[0.1, 0.2]" in printed and "[1] note" in printed and "t [bold]" in printed


def test_an_evaluations_tables_are_written_beside_its_summary(place):
    tables = [TABLE, TextTable("Second", "", ("a", "b"), (("c", "d"),))]
    write_tables(place / "new", tables)
    assert {file.name for file in (place / "new").iterdir()} == {"tables.md", "tables.tex", "tables.csv"}
    assert (place / "new/tables.md").read_text() == markdown(tables)
    assert (place / "new/tables.tex").read_text() == latex(tables)
    found = list(csv.reader((place / "new/tables.csv").open(newline="")))
    assert (
        found[0] == ["By_hand"] and found[1] == list(TABLE.heads) and found[-3:] == [["Second"], ["a", "b"], ["c", "d"]]
    )


def test_an_evaluations_own_tables_show_its_protocols_columns(both):
    """What the microworld's tables show is told by its own names; any other benchmark's by the protocol's."""
    block = {"n": 4, "failed": 0, "metrics": scores(B)}
    summary = json.loads((both[0] / "summary.json").read_text())
    summary |= {"by": {"operation": {"add": block}}}
    summary["baselines"] = {"identity": block | {"title": "source copied", "note": ""}}
    assert comparison(summary).heads == ("system", "CLIPdir", "L1", "DINO")
    assert [row[0] for row in comparison(summary).rows] == ["source copied", "learned (this run)"]
    assert by_group(summary, "operation", False).rows == (("add (n=4)", "0.150", "0.025", "0.875"),)
    summary["protocol"]["columns"] = {"CLIPdir": "clip_direction"}
    first, rest, groups = evaluation_tables(summary, False)
    assert first.heads == ("system", "CLIPdir") and groups.title == "By operation"
    assert rest.heads == ("metric", "learned (this run)", "source copied")
    assert rest.rows == (("L1", "0.050", "0.025"), ("DINO", "0.900", "0.875"))
    del summary["protocol"]["columns"]
    assert len(evaluation_tables(summary)) == 2  # nothing is left out
    assert comparison(summary).heads == ("system", "CLIP dir.", "L1", "DINO")
