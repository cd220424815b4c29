"""The gallery: one HTML page with the cases of an evaluation and their pictures, sortable by any score.

The file contains its pictures. Of a benchmark with more than `SHOWN` cases it holds an evenly spread selection and says
so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from regionedit.evaluation import METRICS
from regionedit.evaluation.entries import Entry
from regionedit.evaluation.pages import picture_uri, render
from regionedit.evaluation.report import pictures_of
from regionedit.files import write_atomic
from regionedit.images import smaller
from regionedit.records import EditCase

SHOWN = 400  # cases on the page
SIDE = 192  # pixels of the longer side of a picture
SMALL = 96  # up to this side pictures are PNG: smaller than JPEG, and lossless


def write_gallery(path: Path, cases: Iterable[EditCase], own: Entry, systems: Sequence[Entry] = ()) -> None:
    """Write the page of an editor's scored cases; failed cases are shown with their reasons.

    Args:
        systems: other editors, whose edited pictures of the same cases are shown beside the editor's own.
    """
    step = -(-len(own.rows) // SHOWN)
    rows = own.rows.iloc[::step].set_index("id")
    scores = [name for name in METRICS if name in rows and rows[name].notna().any()]
    cards = []
    chosen = [case for case in cases if case.id in rows.index]
    theirs = [(system.title, system.outcomes(chosen)) for system in systems]
    for outcome in own.outcomes(chosen):
        row = rows.loc[outcome.case.id]
        others = {title: other.picture for title, outcomes in theirs if (other := next(outcomes)).picture}
        captions = outcome.case.request.captions
        cards.append(
            {
                "id": outcome.case.id,
                "operation": outcome.case.operation,
                "instruction": outcome.case.request.instruction,
                "captions": "" if captions is None else f"{captions.source} \u2192 {captions.target}",
                "failed": outcome.failed,
                "pictures": [
                    (name, picture_uri(smaller(shown, SIDE), SMALL, quality=80))
                    for name, shown in (pictures_of(outcome) | others).items()
                ],
                "scores": json.dumps({name: round(row[name], 4) for name in scores if pd.notna(row[name])}),
            }
        )
    html = render(
        "gallery.html",
        title=f"{own.title}: {len(own.rows)} cases",
        spread=f"one in {step} of {len(own.rows)} cases" if step > 1 else "",
        cards=cards,
        operations=sorted(set(rows["operation"])),
        titles=[(name, METRICS[name].title) for name in scores],
    )
    write_atomic(path, html.encode())
