"""A rater's form: a single HTML file that contains its pictures and works without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

from regionedit.evaluation.human_study.assignment import Trial
from regionedit.evaluation.human_study.pictures import ShownCase
from regionedit.evaluation.human_study.questions import POSITIONS, QUESTIONS, SCALE, answer_columns

LARGEST_FORM = 30_000_000  # bytes of pictures; more is slow on a phone and too large for most mail


def form_html(design: str, trials: Sequence[Trial], cases: dict[str, ShownCase]) -> str:
    """The form of one rater.

    It contains instructions, pictures and trial names, but no names of systems, folders or cases. The pictures are
    numbered in the order in which the rater sees them.

    Args:
        trials: of this rater, in order.

    Raises:
        ValueError: the pictures have more than `LARGEST_FORM` bytes; the message says how many cases would fit.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    numbers: dict[str, int] = {}
    pages = []
    needed: dict[str, set[str]] = {case_id: set() for case_id in cases}  # in the order in which they were drawn
    for trial in trials:
        case = cases[trial.case]
        uris = [case.source, *(case.edited[name] for name in trial.systems)]
        needed[trial.case].update(uris)
        source, *edited = (numbers.setdefault(uri, len(numbers)) for uri in uris)
        pages.append({"trial": trial.name, "instruction": case.instruction, "source": source, "pictures": edited})
    _require_size(trials[0].rater, [sum(map(len, uris)) for uris in needed.values() if uris])
    form = {
        "study": trials[0].name.split("-")[0],
        "rater": f"{trials[0].rater:02d}",
        "design": design,
        "columns": answer_columns(design),
        "positions": list(POSITIONS[: len(trials[0].systems)]),
        "scale": SCALE,
        "questions": [asdict(question) for question in QUESTIONS],
        "trials": pages,
        "pictures": list(numbers),
    }
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("form.html").render(form=form)


def _require_size(rater: int, sizes: list[int]) -> None:
    totals = list(accumulate(sizes))
    fit = sum(total <= LARGEST_FORM for total in totals)
    if fit < len(sizes):
        raise ValueError(
            f"cases: the form of rater {rater} would have {totals[-1] / 1e6:.1f} MB of pictures, "
            f"{LARGEST_FORM / 1e6:g} MB is the most; of its {len(sizes)} cases {fit} fit: give --cases {fit}, "
            "or fewer --trials for each rater"
        )
