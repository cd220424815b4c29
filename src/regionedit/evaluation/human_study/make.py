"""Makes a study: chooses cases, assigns them to raters, and writes forms, answer sheet and key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from pathlib import Path

import numpy as np

from regionedit.config import EvaluateConfig
from regionedit.evaluation import BENCHMARKS
from regionedit.evaluation.human_study.assignment import assign
from regionedit.evaluation.human_study.form import LONGER_SIDE, LOSSLESS, QUALITY, choose_cases, form_html, load_cases
from regionedit.evaluation.human_study.questions import POSITIONS, QUESTIONS
from regionedit.evaluation.human_study.sheets import sheets
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.files import write_together


@dataclass(frozen=True)
class StudySettings:
    """Everything a study depends on.

    Args:
        systems: name -> folder of each system: the `out` of an evaluation, or pictures named by case id.
        out: receives form_rater_01.html ..., template.csv, study.json, key.csv.
        benchmark, data, ids: as for evaluate.py; the source of pictures and instructions.
        cases: number of cases, 0 for all that every system has a picture for.
        raters: number of forms.
        design: likert (both questions on a scale for every picture) or forced_choice (the better picture for each
            question).
        shown: `pairs` shows two systems at a time, `all` shows all of them.
        trials: number for each rater, 0 for every case with every pair.
        repeats: trials of each rater that are shown again, with the pictures in reverse order.
        seed: decides cases, assignment, order and sides.
    """

    systems: dict[str, str]
    out: str
    benchmark: str = EvaluateConfig.benchmark
    data: str = EvaluateConfig.data
    ids: str | None = None
    cases: int = 0
    raters: int = 12
    design: str = "likert"
    shown: str = "pairs"
    trials: int = 0
    repeats: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.benchmark not in BENCHMARKS:
            raise ValueError(f"benchmark: {self.benchmark!r} is none of {', '.join(BENCHMARKS)}")
        least = 1 if self.design == "likert" and self.shown == "all" else 2
        if len(self.systems) < least:
            raise ValueError(f"systems: {len(self.systems)} given, at least {least} are needed to compare")
        if self.shown == "all" and len(self.systems) > len(POSITIONS):
            raise ValueError(f"systems: {len(self.systems)} given, at most {len(POSITIONS)} fit on a page; use --pairs")
        for name, smallest in (("cases", 0), ("raters", 1), ("trials", 0), ("repeats", 0), ("seed", 0)):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name}: {getattr(self, name)}, at least {smallest} is needed")
        for name, folder in self.systems.items():
            if not Path(folder).is_dir():
                raise ValueError(f"systems: {name}: {folder} is not a folder")


def make(settings: StudySettings) -> dict:
    """Make a study; the same settings and pictures give the same files.

    Returns:
        The content of study.json, including `left_out`, `{case: reason}`, and `resized`, `{system: [case, ...]}`.

    Raises:
        ValueError: there are too few cases, a form would be too large, or `out` holds another study's key.
        OSError: `out` cannot be written.
    """
    rng = np.random.default_rng(settings.seed)
    systems = {name: CaseFolder.of_pictures(folder) for name, folder in settings.systems.items()}
    benchmark = BENCHMARKS[settings.benchmark](settings.data, ids=settings.ids)
    chosen, left_out = choose_cases((case.id for case in benchmark if case.scored), systems, settings.cases, rng)
    cases = load_cases(benchmark, chosen, systems)
    system_sets = [tuple(systems)] if settings.shown == "all" else list(combinations(systems, 2))
    units = len(chosen) * len(system_sets)
    each = settings.trials or units
    # Eight digits that differ between studies, so that answers are never read with the key of another study.
    names = ("cases", "raters", "design", "shown", "trials", "repeats", "seed")
    shown = [getattr(settings, name) for name in names], [*systems], {i: asdict(case) for i, case in cases.items()}
    study = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:8]
    trials = assign(study, chosen, system_sets, settings.raters, each, settings.repeats, rng)
    forms = {
        f"form_rater_{rater:02d}.html": form_html(settings.design, list(own), cases).encode()
        for rater, own in groupby(trials, lambda trial: trial.rater)
    }
    key, template = sheets(trials, settings.design, settings.seed)
    out = Path(settings.out)
    if (out / "key.csv").is_file() and (out / "key.csv").read_bytes() != key:
        raise ValueError(f"out: {out} holds the key of another study; choose another folder, that study needs its key")
    record = {
        "study": study,
        **{name: value for name, value in asdict(settings).items() if name != "out"},
        "cases": chosen,
        "trials": each,
        "raters_per_trial": settings.raters * each / units,
        "questions": {question.name: question.text for question in QUESTIONS},
        "pictures": f"at most {LONGER_SIDE} px, PNG up to {LOSSLESS} px, above JPEG of quality {QUALITY}",
        "left_out": left_out,
        "resized": {n: ids for n in systems if (ids := [i for i, case in cases.items() if n in case.resized])},
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    write_together(out, {**forms, "template.csv": template, "study.json": text.encode(), "key.csv": key})
    return record
