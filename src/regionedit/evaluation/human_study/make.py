"""Makes a study: chooses cases, assigns them to raters, and writes forms, answer sheet and key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt
from numpy.random import Generator, default_rng
from PIL.Image import Resampling

from regionedit.config import EvaluateConfig
from regionedit.evaluation.benchmarks import BENCHMARKS, Benchmark
from regionedit.evaluation.human_study.assignment import Trial, assign
from regionedit.evaluation.human_study.sheets import POSITIONS, QUESTIONS, SCALE, answer_columns, sheets
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.evaluation.pages import picture_uri, render
from regionedit.files import write_together

LONGER_SIDE = 512  # pixels
LOSSLESS = 256  # longer side in pixels up to which a picture is embedded without loss
QUALITY = 92
LARGEST_FORM = 30_000_000  # bytes of pictures; more is slow on a phone and too large for most mail


@dataclass(frozen=True)
class StudySettings:
    """Write the forms, the key and the answer sheet of a study.

    Args:
        systems: NAME=DIR ...: an evaluation's `out`, or a folder of pictures named by case id.
        ids: file with the case ids to choose from, a JSON list or one id a line.
        cases: how many; 0: all that every system has a picture for.
        shown: two systems at a time (also `--pairs`) or all of them (also `--all`).
        trials: of each rater; 0: every case with every pair.
    """

    systems: dict[str, str]
    out: str
    benchmark: Literal[*BENCHMARKS] = EvaluateConfig.benchmark
    data: str = EvaluateConfig.data
    ids: str | None = None
    cases: NonNegativeInt = 0
    raters: PositiveInt = 12
    design: Literal["likert", "forced_choice"] = "likert"
    shown: Literal["pairs", "all"] = "pairs"
    trials: NonNegativeInt = 0
    repeats: NonNegativeInt = 0
    seed: NonNegativeInt = 0

    def __post_init__(self):
        for name, folder in self.systems.items():
            if not (name and folder and Path(folder).is_dir()):
                raise ValueError(f"systems: {name}={folder}: no such folder; give NAME=DIR")
        least = 1 if (self.design, self.shown) == ("likert", "all") else 2
        if not least <= len(self.systems) <= len(POSITIONS if self.shown == "all" else self.systems):
            raise ValueError(f"systems: {len(self.systems)} given, at least {least} (--all: at most {len(POSITIONS)})")


def make(settings: StudySettings) -> dict:
    """Make a study; the same settings and pictures give the same files. Returns the content of study.json."""
    rng = default_rng(settings.seed)
    systems = {name: CaseFolder.of_pictures(folder) for name, folder in settings.systems.items()}
    benchmark = BENCHMARKS[settings.benchmark](settings.data, ids=settings.ids)
    cases, left_out = draw_cases(benchmark, systems, settings.cases, rng)
    system_sets = [tuple(systems)] if settings.shown == "all" else list(combinations(systems, 2))
    each = settings.trials or len(cases) * len(system_sets)
    # Eight digits that differ between studies, so that answers are never read with the key of another study.
    names = ("cases", "raters", "design", "shown", "trials", "repeats", "seed")
    content = json.dumps([[getattr(settings, name) for name in names], [*systems], cases])
    study = hashlib.sha256(content.encode()).hexdigest()[:8]
    trials = assign(study, [*cases], system_sets, settings.raters, each, settings.repeats, rng)
    key, template = sheets(trials, settings.design, settings.seed)
    kept = Path(settings.out, "key.csv")
    if kept.is_file() and kept.read_bytes() != key:
        raise ValueError(f"out: {settings.out} holds the key of another study; choose another folder")
    record = {
        "study": study,
        **{name: value for name, value in asdict(settings).items() if name != "out"},
        "cases": [*cases],
        "trials": each,
        "raters_per_trial": settings.raters * each / (len(cases) * len(system_sets)),
        "questions": {question["name"]: question["text"] for question in QUESTIONS},
        "pictures": f"at most {LONGER_SIDE} px, PNG up to {LOSSLESS} px, above JPEG of quality {QUALITY}",
        "left_out": left_out,
        "resized": {n: ids for n in systems if (ids := [i for i, case in cases.items() if n in case["resized"]])},
    }
    forms = groupby(trials, lambda trial: trial.rater)
    files = {f"form_rater_{n:02d}.html": form_html(settings.design, [*own], cases).encode() for n, own in forms}
    files |= {"template.csv": template, "study.json": json.dumps(record, indent=1, ensure_ascii=False).encode()}
    write_together(settings.out, files | {"key.csv": key})
    print(f"{settings.out}: {len(files) - 2} forms of {each} trials; {len(cases)} cases, {len(left_out)} left out")
    if record["raters_per_trial"] < 2:
        print("Each trial has fewer than two raters: agreement cannot be measured.")
    print("Send each rater one form. Keep key.csv to yourself until all answers are in.")
    return record


def draw_cases(
    benchmark: Benchmark, systems: Mapping[str, CaseFolder], count: int, rng: Generator
) -> tuple[dict[str, dict], dict[str, str]]:
    """Draw `count` cases (0: all) at random from those that every system has a readable picture for.

    Returns instruction, source and edited pictures of each by id, and `{id: reason}` of those left out. Pictures are
    data URIs of one size and encoding; `resized` names the systems whose picture had another size than the source.
    """
    ids = [case.id for case in benchmark if case.scored]
    left_out: dict[str, str] = {}
    for case_id in ids:
        lacking = [(name, folder) for name, folder in systems.items() if not folder.picture_path(case_id)]
        if reasons := [f"{name}: {(folder.failure(case_id) or 'no picture').strip()}" for name, folder in lacking]:
            left_out[case_id] = "; ".join(reasons)
    cases: dict[str, dict] = {}
    for case_id in rng.permutation([case_id for case_id in ids if case_id not in left_out]).tolist():
        if not count or len(cases) < count:
            try:
                for name in systems:
                    systems[name].picture(case_id)
                cases[case_id] = {}
            except ValueError as error:
                left_out[case_id] = f"{name}: {error}"
    if not cases or len(cases) < count:
        found = f"{len(cases)} of {len(ids)} have a readable picture of every system"
        raise ValueError(f"cases: {count or 'all'} requested, but only {found}; left out: {left_out}")
    for case in (case for case in benchmark if case.id in cases):
        source = case.request.image
        pictures = {"": source, **{name: folder.picture(case.id) for name, folder in systems.items()}}
        scale = min(1.0, LONGER_SIDE / max(source.size))
        size = tuple(max(1, round(side * scale)) for side in source.size)
        same_size = {name: picture.resize(size, Resampling.LANCZOS) for name, picture in pictures.items()}
        uris = {n: picture_uri(p, LOSSLESS, quality=QUALITY, subsampling=0) for n, p in same_size.items()}
        cases[case.id] |= {"instruction": case.request.instruction, "source": uris.pop(""), "edited": uris}
        cases[case.id]["resized"] = [name for name, picture in pictures.items() if picture.size != source.size]
    return cases, left_out


def form_html(design: str, trials: Sequence[Trial], cases: Mapping[str, dict]) -> str:
    """The form of the rater whose trials these are; pictures are numbered in the order in which the rater sees them."""
    numbers: dict[str, int] = {}
    pages = []
    for trial in trials:
        case = cases[trial.case]
        uris = [case["source"], *(case["edited"][name] for name in trial.systems)]
        places = [numbers.setdefault(uri, len(numbers)) for uri in uris]
        pages.append({"name": trial.name, "instruction": case["instruction"], "pictures": places})
    if (size := sum(map(len, numbers))) > LARGEST_FORM:
        raise ValueError(f"cases: a form would have {size / 1e6:.1f} MB of pictures; give fewer --cases or --trials")
    choices = {"choices": [*map(str, SCALE)] if design == "likert" else [*POSITIONS[: len(trials[0].systems)]]}
    constants = {"likert": design == "likert", "columns": answer_columns(design), "questions": QUESTIONS}
    rater = {"rater": f"{trials[0].rater:02d}", "trials": pages, "pictures": [*numbers], "positions": POSITIONS}
    return render("human_study/form.html", **choices, **constants, **rater)
