"""The report: a single HTML file that contains its pictures, so that it can be mailed and opened anywhere."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from regionedit.config import EvaluateConfig
from regionedit.display import grid, overlay
from regionedit.evaluation.charts import draw_curves, draw_trade_off
from regionedit.evaluation.entries import Entry
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.pages import render
from regionedit.evaluation.tables import TextTable, share_of_ceiling
from regionedit.files import write_atomic
from regionedit.images import data_uri, png, smaller
from regionedit.records import EditCase

THUMBNAIL = 256  # longer side in pixels
PER_OPERATION = 6
WORST = 8
CELL = 128  # side in pixels of a cell of examples.png
EXAMPLES = "Examples"


def write_report(
    path: Path,
    config: EvaluateConfig,
    cases: Iterable[EditCase],
    entries: Sequence[Entry],
    systems: Sequence[Entry],
    summary: dict,
    tables: Sequence[TextTable],
) -> None:
    """Write the report of an evaluation.

    Args:
        cases: of the benchmark.
        entries: scored rows; the editor's own is the first.
        systems: scored rows of other editors on the same cases, or on the first of them.
        summary: the content of summary.json.
        tables: shown in this order.
    """
    own = entries[0]
    chosen = choose_cases(own.rows)
    shown = {case_id for _, ids in chosen for case_id in ids}
    outcomes = _outcomes(own, cases, shown)
    rows = own.rows.set_index("id")
    html = render(
        "report.html",
        title=f"{config.benchmark}: {own.title}",
        note=config.note,
        summary=summary,
        share=share_of_ceiling(summary),
        tables=tables,
        sheet=side_by_side([*entries, *systems], cases),
        trade_off=draw_trade_off(summary),
        curves=draw_curves(config.training_log),
        curves_note=f"Scores on validation pictures during training ({config.training_log}).",
        galleries=[
            {"title": title, "cards": [card(outcomes[case_id], rows.loc[case_id]) for case_id in ids]}
            for title, ids in chosen
        ],
        failures=list(own.rows.loc[own.rows["failed"].notna(), ["id", "failed"]].itertuples(index=False, name=None)),
    )
    write_atomic(path, html.encode())


def side_by_side(entries: Sequence[Entry], cases: Iterable[EditCase]) -> dict:
    """A sheet of pictures: a column for one case of each operation, a row for every system with edited pictures."""
    edited = [entry for entry in entries if entry.edited and entry.folder]
    if len(edited) < 2:
        return {"rows": []}
    common = min((entry.rows for entry in edited), key=len)
    wanted = _one_of_each(choose_cases(common))
    shown = {case.id: case for case in cases if case.id in wanted}
    rows = [("source, truth", [_shown(Outcome(shown[case_id]), "source", "true edit") for case_id in wanted])]
    for entry in edited:
        outcomes = _outcomes(entry, shown.values(), wanted)
        rows.append((entry.title, [_shown(outcomes[case_id], "region", "edited") for case_id in wanted]))
    return {"heads": [shown[case_id].request.instruction for case_id in wanted], "rows": rows}


def _outcomes(entry: Entry, cases: Iterable[EditCase], ids: Collection[str]) -> dict[str, Outcome]:
    """The outcomes of the cases with these ids, by id."""
    return {outcome.case.id: outcome for outcome in entry.outcomes(case for case in cases if case.id in ids)}


def _shown(outcome: Outcome, *names: str) -> list[tuple[str, str]]:
    """The named pictures that the case has, all without names, as (name, data URI)."""
    pictures = pictures_of(outcome).items()
    return [(n, data_uri(png(smaller(picture, THUMBNAIL)))) for n, picture in pictures if not names or n in names]


def _one_of_each(chosen: Sequence[tuple[str, list[str]]]) -> list[str]:
    """The case in the middle of each operation's examples."""
    return [ids[len(ids) // 2] for title, ids in chosen if title.startswith(EXAMPLES)]


def choose_cases(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Titles and case ids: for each operation up to `PER_OPERATION` cases spread evenly, then the worst regions."""
    scored = rows[rows["failed"].isna()]
    chosen = []
    for operation, part in scored.groupby("operation", sort=False):
        step = max(1, len(part) // PER_OPERATION)
        chosen.append((f"{EXAMPLES}: {operation}", part["id"].iloc[::step][:PER_OPERATION].tolist()))
    if scored.get("region_iou") is not None and scored["region_iou"].notna().any():
        worst = scored.nsmallest(WORST, "region_iou")
        chosen.append(("The worst regions", worst["id"].tolist()))
    return chosen


def pictures_of(outcome: Outcome) -> dict[str, Image.Image]:
    """The pictures of a case by name, from the source to the true edit; missing ones are left out."""
    case = outcome.case
    source = case.request.image
    pictures = {"source": source}
    if outcome.probability is not None:
        pictures["probability"] = _grey(outcome.probability)
    if outcome.mask is not None:
        pictures["region"] = overlay(source, _grey(outcome.mask))
    if outcome.picture is not None:
        pictures["edited"] = outcome.picture
    if case.truth_mask is not None:
        pictures["true region"] = overlay(source, case.truth_mask)
    if case.truth_image is not None:
        pictures["true edit"] = case.truth_image
    return pictures


def card(outcome: Outcome, row: pd.Series) -> dict:
    """The content of one case's card in the report."""
    shown = {"region_iou": "region IoU", "pointing": "pointing", "l1": "L1"}
    scores = [f"{title} {row[name]:.2f}" for name, title in shown.items() if pd.notna(row.get(name))]
    success = row.get("edit_success")
    return {
        "id": outcome.case.id,
        "instruction": outcome.case.request.instruction,
        "pictures": _shown(outcome),
        "scores": ", ".join(scores),
        "success": None if success is None or pd.isna(success) else bool(success),
    }


def write_examples(path: Path, cases: Iterable[EditCase], own: Entry) -> None:
    """Write a sheet with one case of each operation, chosen by its place in the benchmark and not by hand."""
    wanted = _one_of_each(choose_cases(own.rows))
    outcomes = _outcomes(own, cases, wanted)
    rows = [[_text_cell(outcomes[i].case.request.instruction), *pictures_of(outcomes[i]).values()] for i in wanted]
    if rows:
        names = pictures_of(outcomes[wanted[0]])
        write_atomic(path, png(grid(rows, header=("instruction", *names), cell=CELL)))


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray((values * 255).round().astype("uint8"))


def _text_cell(text: str) -> Image.Image:
    """A white cell with wrapped text."""
    cell = Image.new("RGB", (CELL, CELL), "white")
    ImageDraw.Draw(cell).multiline_text((4, CELL // 3), textwrap.fill(text, 19), fill="black")
    return cell
