"""Makes a study: chooses cases, assigns them to raters, and writes forms, answer sheet and key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from pathlib import Path

import numpy as np

from regionedit.config import EvaluateConfig
from regionedit.evaluation import BENCHMARKS
from regionedit.evaluation.human_study.assignment import assign
from regionedit.evaluation.human_study.form import LONGER_SIDE, LOSSLESS, QUALITY, form_html, load_cases
from regionedit.evaluation.human_study.sheets import POSITIONS, QUESTIONS, sheets
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.files import write_together


@dataclass(frozen=True)
class StudySettings:
    """Everything a study depends on: the options of `python -m regionedit.evaluation.human_study make`, see its --help.

    `systems` maps each system's name to its folder.
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
        "questions": {question["name"]: question["text"] for question in QUESTIONS},
        "pictures": f"at most {LONGER_SIDE} px, PNG up to {LOSSLESS} px, above JPEG of quality {QUALITY}",
        "left_out": left_out,
        "resized": {n: ids for n in systems if (ids := [i for i, case in cases.items() if n in case.resized])},
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    write_together(out, {**forms, "template.csv": template, "study.json": text.encode(), "key.csv": key})
    return record


def choose_cases(
    ids: Iterable[str], systems: Mapping[str, CaseFolder], count: int, rng: np.random.Generator
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
        if lacking:
            reasons = (f"{name}: {(folder.failure(case_id) or 'no picture').strip()}" for name, folder in lacking)
            left_out[case_id] = "; ".join(reasons)
    eligible = [case_id for case_id in ids if case_id not in left_out]
    chosen: list[str] = []
    for case_id in (eligible[place] for place in rng.permutation(len(eligible))):
        if count and len(chosen) == count:
            break
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
