"""The tables of an evaluation as plain rows of text: what the console prints and what the report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from regionedit.evaluation import METRICS

COMPARISON = (
    "region_iou",
    "region_iou_best",
    "region_iou_pixel",
    "region_precision",
    "region_recall",
    "pointing",
    "edit_success",
    "outside_change",
    "l1",
    "clip_direction",
    "clip_image",
    "dino",
)
BY_OPERATION = (
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
)
BY_GROUP = ("region_iou", "region_iou_best", "region_iou_pixel", "pointing", "edit_success", "l1", "clip_direction")


@dataclass(frozen=True)
class TextTable:
    """A title, a note, column heads and rows of cells; the first cell of a row is its name."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison(summary: dict, intervals: bool = True) -> TextTable:
    """The editor between its rivals, from a summary; `chance` tells what pointing at random would score."""
    rivals = {name: block for name, block in summary["baselines"].items() if name != "truth"}
    blocks = [(block["title"], block) for block in rivals.values()]
    blocks.append((f"{summary['name']} (this run)", summary))
    if summary["ceiling"]:
        blocks.append(("trained with masks (ceiling)", summary["ceiling"]))
    if "truth" in summary["baselines"]:
        blocks.append((summary["baselines"]["truth"]["title"], summary["baselines"]["truth"]))
    note = f"region columns: mean over {', '.join(summary['protocol']['headline_operations'])}"
    chance = summary["metrics"].get("pointing_chance")
    note += f"; pointing at random scores {chance['mean']:.3f}" if chance else ""
    notes = [f"{block['title']}: {block['note']}" for block in rivals.values() if block["note"]]
    return _table("Regions and edits", "; ".join([note, *notes]), "region", COMPARISON, blocks, intervals)


def by_group(summary: dict, group: str, intervals: bool = True) -> TextTable:
    """One group of cases a row: operations, numbers of objects, seen and unseen pairs."""
    columns = BY_OPERATION if group == "operation" else BY_GROUP
    blocks = [(f"{value} (n={block['n']})", block) for value, block in summary["by"][group].items()]
    return _table(f"By {group}", "", group, columns, blocks, intervals)


def share_of_ceiling(summary: dict) -> str:
    """How near the run comes to the same predictor trained with masks, in words; empty without a ceiling."""
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
    """The comparison and every group, on the console: means alone, intervals are in the report."""
    for table in (comparison(summary, False), *(by_group(summary, group, False) for group in summary["by"])):
        shown = RichTable(title=table.title, caption=table.note or None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        shown.title_justify = shown.caption_justify = "left"
        for place, head in enumerate(table.heads):
            shown.add_column(head, justify="right" if place else "left", no_wrap=True)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    closing = [share_of_ceiling(summary), f"{summary['n']} cases, {summary['failed']} failed"]
    console.print("; ".join(part for part in closing if part))


def _table(
    title: str, note: str, head: str, columns: Sequence[str], blocks: Sequence[tuple[str, dict]], intervals: bool
) -> TextTable:
    shown = [name for name in columns if any(name in block["metrics"] for _, block in blocks)]
    rows = tuple(
        (name, *(_cell(block["metrics"].get(column), intervals) for column in shown)) for name, block in blocks
    )
    return TextTable(title, note, (head, *(METRICS[name].title for name in shown)), rows)


def _cell(score: dict | None, interval: bool) -> str:
    """The mean, and half the width of its interval."""
    if score is None:
        return ""
    width = f" ±{(score['high'] - score['low']) / 2:.3f}" if interval and score["low"] is not None else ""
    return f"{score['mean']:.3f}{width}"
