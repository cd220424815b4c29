"""Comparing evaluations: numbers computed differently never share a column; no text of it is lost."""

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from regionedit.evaluation import BENCHMARKS
from regionedit.evaluation.compare import main
from regionedit.evaluation.comparison_tables import numbers
from regionedit.evaluation.export import to_csv, to_latex, to_markdown
from regionedit.evaluation.finished_evaluations import read_evaluations
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.tables import TextTable, by_group, comparison, evaluation_tables, print_table
from tests.evaluation_folders import PROTOCOL, A, B, cells, evaluation, scores, shown

pytestmark = pytest.mark.usefixtures("place")


def test_a_table_has_the_protocols_columns_means_with_intervals_and_the_best_in_bold(both):
    table = shown(*both).tables[0]
    assert table.heads == ("system", "n", "failed", "CLIPdir ↑", "L1 ↓", "DINO ↑")
    assert "not measured: CLIPout, CLIPimg" in table.note
    ours = cells(table)["ours"]
    score = interval(np.array(A["clip_direction"]))
    assert ours["CLIPdir ↑"] == f"0.2500 ±{(score['high'] - score['low']) / 2:.4f}"
    assert (ours["n"], ours["failed"]) == ("4", "0")
    assert table.best == {(0, 3), (1, 4), (0, 5)}  # CLIPdir: ours; L1, lower: theirs; DINO: ours


def test_a_single_system_is_not_marked_best_and_ties_are_all_marked(place, both):
    assert not shown(both[0]).tables[0].best
    twin = evaluation(place / "twin", A)
    assert shown(both[0], twin).tables[0].best == {(row, place) for row in (0, 1) for place in (3, 4, 5)}


def test_the_copied_source_is_shown_once_and_reference_rows_are_never_best(place):
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


def test_cases_without_a_value_are_noted(place):
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


def test_published_rows_of_the_protocol_are_listed_below_and_marked_as_quoted(both):
    found = shown(*both, published=True)
    table, *others = found.tables
    name = next(row[0] for row in table.rows if row[0].startswith("Learnable Regions (5M)"))
    assert name == "Learnable Regions (5M) [1]"
    assert cells(table)[name] == {"n": "", "failed": "", "CLIPdir ↑": "0.1088", "L1 ↓": "0.0723", "DINO ↑": "0.8337"}
    assert re.search(r"\[1\] quoted, not measured here: Ma et al.*Table 2", table.note)
    assert "not stated by the protocol's authors, CLIPdir: normalised here" in table.note
    assert "printed, but not shown here: CLIPout, CLIPimg" in table.note
    assert table.rules == {2} and {row for row, _ in table.best} <= {0, 1}
    assert others and all("not comparable" in other.title and "ultraedit" not in other.title for other in others)
    (icedit,) = [other for other in others if "In-Context Edit" in other.title]
    assert icedit.title.startswith("Other protocol (icedit), not comparable: ") and "second-hand" in icedit.title
    assert cells(icedit)["ICEdit"] == {"CLIP-I": "0.907", "CLIP-Out": "0.305", "DINO": "0.866"}
    kinds = [row.kind for row in found.rows]
    assert kinds[:2] == ["measured"] * 2 and set(kinds[2:]) == {"published"}


def test_no_published_row_is_compared_with_numbers_of_tiny_networks(place):
    """The protocol's name alone does not make numbers comparable."""
    tables = shown(evaluation(place / "tiny", A, judge="tiny"), published=True).tables
    assert [row[0] for row in tables[0].rows] == ["tiny"]
    assert "no printed row compares" in tables[0].note and "tiny: judge: 'tiny', not 'B/32'" in tables[0].note
    assert any("(ultraedit), not comparable" in table.title for table in tables[1:])


def test_a_protocol_without_published_rows_says_so(place):
    folder = evaluation(place / "ours", A, name="none")
    assert "no printed row is known for protocol none" in shown(folder, published=True).tables[0].note


def test_an_impossible_figure_is_shown_as_printed_with_a_note(place, monkeypatch):
    columns = {"L1": "l1", "L2": "clip_text", "DINO": "dino"}
    protocol = PROTOCOL | {"benchmark": "magicbrush", "columns": columns, "unstated": {}}
    monkeypatch.setitem(BENCHMARKS, "magicbrush", BENCHMARKS["microworld"])
    (place / "configs/protocols/magicbrush.yaml").write_text(yaml.safe_dump(protocol, sort_keys=False))
    values = {"l1": A["l1"], "clip_text": A["l1"], "dino": A["dino"]}
    folder = evaluation(place / "o", values, name="magicbrush", benchmark="magicbrush", columns=columns)
    table = shown(folder, published=True).tables[0]
    (name,) = [row[0] for row in table.rows if row[0].startswith("RF-Solver")]
    assert "0.3120" in cells(table)[name].values() and "RF-Solver: impossible: L2 0.312" in table.note


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


def test_latex_escapes_all_special_characters():
    text = to_latex(TABLE)
    assert r"a\_b \& 50\% $|$ \#1 \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} $<$b$>$" in text
    assert r"\$5" in text and r"\textbf{0.1 $\pm$0.2}" in text and r"L1 $\downarrow$" in text
    # LaTeX would read a [ at the start of a row as the argument of the preceding line break.
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


def test_an_evaluations_own_tables_show_its_protocols_columns(both):
    """The microworld's tables use its own column names; those of other benchmarks use the protocol's columns."""
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
    assert len(evaluation_tables(summary)) == 2  # no metric is left out
    assert comparison(summary).heads == ("system", "CLIP dir.", "L1", "DINO")


def test_the_columns_that_name_a_row_are_in_every_part_of_a_wide_table(capsys):
    heads = ("system", "question", *(f"column {i}" for i in range(9)))
    print_table(TextTable("wide", "", heads, (("ours", "inside", *"abcdefghi"),), names=2), Console(width=60))
    printed = capsys.readouterr().out
    assert printed.count("ours    inside") == printed.count("system  question") == 3
    assert all(printed.count(f"column {i}") == 1 for i in range(9))
