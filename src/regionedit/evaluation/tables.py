"""The tables of an evaluation as rows of text, for the console, the report and the exported files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from regionedit.evaluation import METRICS
from regionedit.evaluation.protocols import column_heads

if TYPE_CHECKING:
    from regionedit.evaluation.entries import Entry

FEW = 12  # up to this many cases, a table lists each case
OF_A_CASE = (  # columns of the table that lists each case
    "region_iou",
    "region_iou_pixel",
    "change_iou_focus",
    "change_iou",
    "edit_success",
    "clip_instruction",
    "clip_direction",
    "outside_truth_change",
    "l1",
)

# The microworld's tables each have their own columns; the tables of other benchmarks show the protocol's columns.
OWN_COLUMNS = {
    "microworld": {
        "comparison": (
            "region_iou",
            "region_iou_best",
            "region_iou_pixel",
            "mask_iou",
            "region_precision",
            "region_recall",
            "pointing",
            "edit_success",
            "outside_change",
            "outside_truth_change",
            "l1",
            "clip_direction",
            "clip_image",
            "dino",
        ),
        "operation": (
            "region_iou",
            "region_iou_pixel",
            "region_area",
            "pointing",
            "pointing_chance",
            "add_inside",
            "add_size_ratio",
            "background_iou",
            "edit_success",
            "l1",
            "clip_direction",
        ),
        "group": (
            "region_iou",
            "region_iou_best",
            "region_iou_pixel",
            "pointing",
            "edit_success",
            "l1",
            "clip_direction",
        ),
    }
}


@dataclass(frozen=True)
class TextTable:
    """A title, a note, column heads and rows of cells.

    Args:
        note: shown below the table; may have several lines.
        best: (row, column) of the cells shown in bold, both from 0.
        rules: rows above which a line is drawn.
        names: how many of the first columns name the row.
    """

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    rules: frozenset[int] = frozenset()
    names: int = 1


def columns_of(summary: dict, table: str) -> dict[str, str]:
    """Head -> metric of the `comparison`, `operation` or `group` table, from OWN_COLUMNS or from the protocol."""
    own = OWN_COLUMNS.get(summary["benchmark"])
    if own is not None:
        return column_heads(own[table])
    return summary["protocol"].get("columns") or column_heads(summary["metrics"])


def comparison(summary: dict, intervals: bool = True) -> TextTable:
    """The editor and its baselines, from a summary; a note gives the score of pointing at random."""
    baselines = {name: block for name, block in summary["baselines"].items() if name != "truth"}
    blocks = [(block["title"], block) for block in baselines.values()]  # over all cases; `systems` may be over fewer
    blocks.append((f"{summary['name']} (this run)", summary))
    if summary["ceiling"]:
        blocks.append(("trained with masks (ceiling)", summary["ceiling"]))
    if "truth" in summary["baselines"]:
        blocks.append((summary["baselines"]["truth"]["title"], summary["baselines"]["truth"]))
    notes = []
    if headline := summary["protocol"].get("headline_operations"):
        notes.append(f"region columns: mean over {', '.join(headline)}")
    if chance := summary["metrics"].get("pointing_chance"):
        notes.append(f"pointing at random scores {chance['mean']:.3f}")
    notes += [f"{block['title']}: {block['note']}" for block in baselines.values() if block["note"]]
    columns = columns_of(summary, "comparison")
    of_regions = any(name in METRICS and METRICS[name].of_region for name in columns.values())
    title, head = ("Regions and edits", "region") if of_regions else ("Edits", "system")
    return _table(title, "; ".join(notes), head, columns, blocks, intervals, seconds=True)


def systems(summary: dict, intervals: bool = True) -> TextTable:
    """Other editors over the cases that they edited, and this run over the same cases."""
    blocks = [(block["title"], block) for block in summary.get("systems", {}).values()]
    notes = [f"{block['title']}: {block['note']}" for _, block in blocks if block["note"]]
    count = f"the first {blocks[0][1]['n']} cases" if blocks else ""
    columns = columns_of(summary, "comparison")
    return _table("Other systems", "; ".join([count, *notes]), "system", columns, blocks, intervals, seconds=True)


def by_group(summary: dict, group: str, intervals: bool = True) -> TextTable:
    """A row for each value of a group, for example each operation, number of objects, or seen and unseen pairs."""
    columns = columns_of(summary, "operation" if group == "operation" else "group")
    blocks = [(f"{value} (n={block['n']})", block) for value, block in summary["by"][group].items()]
    return _table(f"By {group}", "", group, columns, blocks, intervals)


def also_measured(summary: dict, intervals: bool = True) -> TextTable:
    """The metrics without a column in the other tables: a row for each metric, a column for each system."""
    shown = {name for table in ("comparison", "operation", "group") for name in columns_of(summary, table).values()}
    blocks = {f"{summary['name']} (this run)": summary}
    blocks |= {block["title"]: block for block in summary["baselines"].values()}
    others = dict.fromkeys(name for block in blocks.values() for name in block["metrics"] if name not in shown)
    rows = tuple(
        (head, *(score_cell(block["metrics"].get(name), intervals) for block in blocks.values()))
        for head, name in column_heads(others).items()
    )
    return TextTable("Also measured", "", ("metric", *blocks), rows)


def changes_by_turn(summary: dict, intervals: bool = True) -> TextTable:
    """The change of every score from a session's first turn: a row for each later turn."""
    turns = [(turn, {"metrics": scores}) for turn, scores in summary.get("change_by_turn", {}).items()]
    columns = columns_of(summary, "operation")
    note = "mean change from the first turn, over the sessions that have both turns"
    counts = [max(score["n"] for score in block["metrics"].values()) for _, block in turns]
    named = [(f"{turn} − turn 1 (n={n})", block) for (turn, block), n in zip(turns, counts, strict=True)]
    return _table("Change by turn", note, "turn", columns, named, intervals)


def evaluation_tables(summary: dict, intervals: bool = True) -> list[TextTable]:
    """All tables of an evaluation: comparison, other systems, remaining metrics, change by turn, and every group."""
    groups = [by_group(summary, group, intervals) for group in summary["by"]]
    single = [make(summary, intervals) for make in (comparison, systems, also_measured, changes_by_turn)]
    return [table for table in (*single, *groups) if table.rows]


def few_cases(summary: dict, entries: Sequence[Entry]) -> list[TextTable]:
    """A table with a row for each case and each system that edited all cases; none if there are more than `FEW`."""
    edited = [entry for entry in entries if entry.edited and len(entry.rows) == summary["n"]]
    if not edited or not 0 < summary["n"] <= FEW:
        return []
    measured = [name for name in OF_A_CASE if any(name in e.rows and e.rows[name].notna().any() for e in edited)]
    shown = column_heads(measured)
    rows, rules = [], set()
    for place, name in enumerate(edited[0].rows["id"]):
        rules.add(len(rows))
        for entry in edited:
            row = entry.rows.iloc[place]
            cells = [_number(row.get(column)) for column in shown.values()]
            rows.append((f"{name}: {entry.title}", *cells, _number(row.get("seconds"), 2)))
    return [TextTable("Cases", "", ("case", *shown, "s/edit"), tuple(rows), rules=frozenset(rules - {0}))]


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"


def share_of_ceiling(summary: dict) -> str:
    """The run's scores as shares of those of the same predictor trained with masks; empty without a ceiling."""
    if not summary["ceiling"]:
        return ""
    best = summary["ceiling"]["metrics"]
    shares = [
        f"{METRICS[name].title} {summary['metrics'][name]['mean'] / best[name]['mean']:.0%}"
        for name in ("region_iou", "region_iou_best", "pointing")
        if name in best and name in summary["metrics"]
    ]
    return f"share of the ceiling: {', '.join(shares)}"


def print_tables(summary: dict, console: Console) -> None:
    """Print every table, means only; the report has the intervals."""
    for table in evaluation_tables(summary, False):
        print_table(table, console)
    closing = [share_of_ceiling(summary), f"{summary['n']} cases, {summary['failed']} failed"]
    console.print("; ".join(part for part in closing if part), markup=False)


def print_table(table: TextTable, console: Console) -> None:
    """Print a table, split into parts if it is wider than the console; cells are never parsed as markup."""
    console.print(Text(table.title, style="italic"))
    for columns in _fitting(table, console.width):
        shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place in columns:
            shown.add_column(Text(table.heads[place]), justify="left" if place < table.names else "right", no_wrap=True)
        for number, row in enumerate(table.rows):
            if number in table.rules:
                shown.add_section()
            bold = ("bold" if (number, place) in table.best else "" for place in columns)
            shown.add_row(*(Text(row[place], style=style) for place, style in zip(columns, bold, strict=True)))
        console.print(shown)
    # Title and note are printed separately, because rich wraps a table's own ones to the table's width.
    console.print(Text(table.note, style="dim"))


def _fitting(table: TextTable, width: int) -> list[list[int]]:
    """The column numbers of each part that fits into `width`; the columns that name the rows are in every part."""
    needed = [max(map(len, cells)) + 2 for cells in zip(table.heads, *table.rows, strict=True)]
    names = [*range(table.names)]
    parts: list[list[int]] = [[*names]]
    for place in range(table.names, len(needed)):
        if len(parts[-1]) > len(names) and sum(needed[p] for p in parts[-1]) + needed[place] + 1 > width:
            parts.append([*names])
        parts[-1].append(place)
    return parts


def _table(
    title: str,
    note: str,
    head: str,
    columns: Mapping[str, str],
    blocks: Sequence[tuple[str, dict]],
    intervals: bool,
    seconds: bool = False,
) -> TextTable:
    """A row for each block, a column for each metric that any block has; with `seconds`, also the time of an edit."""
    shown = {t: name for t, name in columns.items() if any(name in block["metrics"] for _, block in blocks)}
    timed = seconds and any(block.get("seconds") for _, block in blocks)
    rows = []
    for name, block in blocks:
        cells = [score_cell(block["metrics"].get(column), intervals) for column in shown.values()]
        rows.append((name, *cells, *([_number(block.get("seconds"), 2)] if timed else [])))
    return TextTable(title, note, (head, *shown, *(["s/edit"] if timed else [])), tuple(rows))


def bracketed(mean: float | None, low: float | None, high: float | None, digits: int) -> str:
    """The mean and, if there is one, its interval: `0.25 [0.10, 0.40]`."""
    if mean is None:
        return "undefined"
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def terminal(width: int = 132) -> Console:
    """A console as wide as the terminal, or of `width` characters where the output is no terminal."""
    return Console(width=None if sys.stdout.isatty() else width)


def score_cell(score: dict | None, interval: bool = True, digits: int = 3) -> str:
    """The mean ± half the width of its interval; empty without a score, the mean alone if it has no interval."""
    if score is None:
        return ""
    known = interval and score.get("low") is not None
    width = f" ±{(score['high'] - score['low']) / 2:.{digits}f}" if known else ""
    return f"{score['mean']:.{digits}f}{width}"
