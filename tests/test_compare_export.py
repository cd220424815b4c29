"""The files and the console table of a comparison: no text is lost or interpreted as markup."""

import csv
import io
import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from regionedit.evaluation.compare import main
from regionedit.evaluation.export import to_csv, to_latex, to_markdown
from regionedit.evaluation.tables import TextTable, by_group, comparison, evaluation_tables, print_table
from tests.evaluation_folders import B, scores

pytestmark = pytest.mark.usefixtures("place")


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
