"""A rater's form: a single HTML file that contains its pictures and works without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from PIL import Image

from regionedit.evaluation.benchmarks import Benchmark
from regionedit.evaluation.human_study.assignment import Trial
from regionedit.evaluation.human_study.sheets import POSITIONS, QUESTIONS, SCALE, answer_columns
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.evaluation.pages import picture_uri, render

LONGER_SIDE = 512  # pixels
LOSSLESS = 256  # longer side in pixels up to which a picture is embedded without loss
QUALITY = 92
LARGEST_FORM = 30_000_000  # bytes of pictures; more is slow on a phone and too large for most mail


@dataclass(frozen=True)
class ShownCase:
    """A case as a form shows it.

    Args:
        source: data URI of the source picture.
        edited: system -> data URI of its picture, at the source's size.
        resized: the systems whose picture had another size than the source.
    """

    instruction: str
    source: str
    edited: dict[str, str]
    resized: tuple[str, ...]


def load_cases(benchmark: Benchmark, chosen: list[str], systems: Mapping[str, CaseFolder]) -> dict[str, ShownCase]:
    """The chosen cases by id, in the order of `chosen`."""
    cases = {}
    for case in benchmark:
        if case.id in chosen:
            source = case.request.image
            edited = {name: folder.picture(case.id) for name, folder in systems.items()}
            scale = min(1.0, LONGER_SIDE / max(source.size))
            size = tuple(max(1, round(side * scale)) for side in source.size)
            cases[case.id] = ShownCase(
                case.request.instruction,
                _embedded(source, size),
                {name: _embedded(picture, size) for name, picture in edited.items()},
                tuple(name for name, picture in edited.items() if picture.size != source.size),
            )
        if len(cases) == len(chosen):
            break
    return {case_id: cases[case_id] for case_id in chosen}


def _embedded(picture: Image.Image, size: tuple[int, int]) -> str:
    """The picture as a data URI, encoded in the same way for every system."""
    picture = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
    return picture_uri(picture, LOSSLESS, quality=QUALITY, subsampling=0)


def form_html(design: str, trials: Sequence[Trial], cases: dict[str, ShownCase]) -> str:
    """The form of one rater, whose trials these are, in order.

    It contains instructions, pictures and trial names, but no names of systems, folders or cases. The pictures are
    numbered in the order in which the rater sees them.

    Raises:
        ValueError: the pictures have more than `LARGEST_FORM` bytes; the message says how many cases would fit.
    """
    first = trials[0]
    numbers: dict[str, int] = {}
    pages = []
    needed: dict[str, set[str]] = {case_id: set() for case_id in cases}  # in the order in which they were drawn
    for trial in trials:
        case = cases[trial.case]
        uris = [case.source, *(case.edited[name] for name in trial.systems)]
        needed[trial.case].update(uris)
        source, *edited = (numbers.setdefault(uri, len(numbers)) for uri in uris)
        pages.append({"trial": trial.name, "instruction": case.instruction, "source": source, "pictures": edited})
    totals = list(accumulate(sum(map(len, uris)) for uris in needed.values() if uris))
    fit = sum(total <= LARGEST_FORM for total in totals)
    if fit < len(totals):
        raise ValueError(
            f"cases: the form of rater {first.rater} would have {totals[-1] / 1e6:.1f} MB of pictures, "
            f"{LARGEST_FORM / 1e6:g} MB is the most; of its {len(totals)} cases {fit} fit: give --cases {fit}, "
            "or fewer --trials for each rater"
        )
    form = {
        "study": first.name.split("-")[0],
        "rater": f"{first.rater:02d}",
        "design": design,
        "columns": answer_columns(design),
        "positions": list(POSITIONS[: len(first.systems)]),
        "scale": SCALE,
        "questions": QUESTIONS,
        "trials": pages,
        "pictures": list(numbers),
    }
    return render("human_study/form.html", form=form)
