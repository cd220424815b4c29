"""A rater's form: a single HTML file that contains its pictures and works without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

import numpy as np
from PIL import Image

from regionedit.evaluation.benchmarks import Benchmark
from regionedit.evaluation.human_study.assignment import Trial
from regionedit.evaluation.human_study.questions import POSITIONS, QUESTIONS, SCALE, answer_columns
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.evaluation.pages import picture_uri, render

LONGER_SIDE = 512  # pixels
LOSSLESS = 256  # longer side in pixels up to which a picture is embedded without loss
QUALITY = 92
LARGEST_FORM = 30_000_000  # bytes of pictures; more is slow on a phone and too large for most mail

Systems = Mapping[str, CaseFolder]  # by name


def choose_cases(
    ids: Iterable[str], systems: Systems, count: int, rng: np.random.Generator
) -> tuple[list[str], dict[str, str]]:
    """Draw `count` cases (0: all) at random from those that every system has a readable picture for.

    With the same random generator, a smaller count gives the first of a larger count's cases.

    Returns:
        The chosen ids, and `{id: reason}` of those found ineligible; only pictures of drawn cases are opened.

    Raises:
        ValueError: too few cases are eligible.
    """
    ids = list(ids)
    left_out: dict[str, str] = {}
    for case_id in ids:
        lacking = [(name, folder) for name, folder in systems.items() if not folder.picture_path(case_id)]
        if reasons := [f"{name}: {(folder.failure(case_id) or 'no picture').strip()}" for name, folder in lacking]:
            left_out[case_id] = "; ".join(reasons)
    eligible = [case_id for case_id in ids if case_id not in left_out]
    chosen: list[str] = []
    for place in rng.permutation(len(eligible)):
        if count and len(chosen) == count:
            break
        case_id = eligible[place]
        if faults := [fault for name, folder in systems.items() if (fault := _unreadable(name, folder, case_id))]:
            left_out[case_id] = "; ".join(faults)
        else:
            chosen.append(case_id)
    if not chosen or len(chosen) < count:
        reasons = "; ".join(f"{i} ({reason})" for i, reason in [*left_out.items()][:3])
        raise ValueError(
            f"cases: {count or 'all'} requested, but of the benchmark's {len(ids)} only {len(chosen)} have a readable "
            f"picture of every system; left out: {reasons or 'none'}{', ...' if len(left_out) > 3 else ''}"
        )
    return chosen, left_out


def _unreadable(name: str, folder: CaseFolder, case_id: str) -> str:
    try:
        folder.picture(case_id)
    except ValueError as error:
        return f"{name}: {error}"
    return ""


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


def load_cases(benchmark: Benchmark, chosen: list[str], systems: Systems) -> dict[str, ShownCase]:
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
    return render("human_study/form.html", form=form)


def _require_size(rater: int, sizes: list[int]) -> None:
    totals = list(accumulate(sizes))
    fit = sum(total <= LARGEST_FORM for total in totals)
    if fit < len(sizes):
        raise ValueError(
            f"cases: the form of rater {rater} would have {totals[-1] / 1e6:.1f} MB of pictures, "
            f"{LARGEST_FORM / 1e6:g} MB is the most; of its {len(sizes)} cases {fit} fit: give --cases {fit}, "
            "or fewer --trials for each rater"
        )
