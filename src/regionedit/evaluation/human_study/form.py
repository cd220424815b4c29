"""A rater's form: a single HTML file that contains its pictures and works without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from regionedit.evaluation.human_study.assignment import Trial
from regionedit.evaluation.human_study.pictures import ShownCase
from regionedit.evaluation.human_study.questions import POSITIONS, QUESTIONS, SCALE
from regionedit.evaluation.human_study.sheets import answer_columns

LARGEST_FORM = 30_000_000  # bytes of pictures; more is slow on a phone and too large for most mail


def form_html(design: str, trials: Sequence[Trial], cases: dict[str, ShownCase]) -> str:
    """The form of one rater.

    It contains instructions, pictures and trial names, but no names of systems, folders or cases. The pictures are
    numbered in the order in which the rater sees them.

    Args:
        trials: of this rater, in order.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    numbers: dict[str, int] = {}
    pages = []
    for trial in trials:
        case = cases[trial.case]
        shown = [numbers.setdefault(uri, len(numbers)) for uri in _pictures(trial, case)]
        pages.append({"trial": trial.name, "instruction": case.instruction, "source": shown[0], "pictures": shown[1:]})
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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("form.html").render(form=form)


def require_size(trials: Sequence[Trial], cases: dict[str, ShownCase]) -> None:
    """Check the size of a rater's form.

    Raises:
        ValueError: its pictures have more than `LARGEST_FORM` bytes; the message says how many cases would fit.
    """
    needed: dict[str, set[str]] = {case_id: set() for case_id in cases}  # in the order in which they were drawn
    for trial in trials:
        needed[trial.case].update(_pictures(trial, cases[trial.case]))
    needed = {case_id: uris for case_id, uris in needed.items() if uris}
    total = fit = 0
    for uris in needed.values():
        total += sum(map(len, uris))
        fit += total <= LARGEST_FORM
    if total > LARGEST_FORM:
        raise ValueError(
            f"cases: the form of rater {trials[0].rater} would have {total / 1e6:.1f} MB of pictures, "
            f"{LARGEST_FORM / 1e6:g} MB is the most; of its {len(needed)} cases {fit} fit: give --cases {fit}, "
            "or fewer --trials for each rater"
        )


def _pictures(trial: Trial, case: ShownCase) -> list[str]:
    return [case.source, *(case.edited[name] for name in trial.systems)]
