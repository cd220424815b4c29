"""One request under several mask sources and generators: pictures, times and scores side by side."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.config import EvaluateConfig
from regionedit.display import grid, overlay
from regionedit.editor import Editor
from regionedit.images import png
from regionedit.mask_sources import MASK_SOURCES
from regionedit.records import Captions, EditCase, EditFailure, EditRequest, EditResult
from regionedit.results import changed_outside

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.web.settings import Settings
    from regionedit.web.sketch import Cut, Sketch
    from regionedit.web.studio import Studio

METRICS = ("clip_text", "clip_direction", "l1_source")
MARKED = "corrected by hand"
COLUMNS = ("system", "seconds", "edited, %", "pixels changed outside", *METRICS)


@dataclass(frozen=True)
class Compared:
    """One system's answer.

    Args:
        system: its name.
        result: or None where it failed.
        seconds: of the whole edit, with loading where a model was used for the first time.
        scores: metric -> value; none that could not be computed.
        failure: why there is no result, or empty.
    """

    system: str
    result: EditResult | None
    seconds: float
    scores: dict[str, float]
    failure: str = ""

    def row(self) -> list:
        """The cells of COLUMNS."""
        if self.result is None:
            return [f"{self.system}: {self.failure}", *[""] * (len(COLUMNS) - 1)]
        outside = changed_outside(self.result.source, self.result.image, self.result.mask)
        scores = [round(self.scores[name], 4) if name in self.scores else "" for name in METRICS]
        return [self.system, round(self.seconds, 2), round(100 * self.result.share, 1), outside, *scores]


class Comparer:
    """Compares the page's own editor under several mask sources, and other configurations.

    Other systems and the judge are loaded when they are first asked for, and kept.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self._systems: dict[str, Editor] = {}
        self._metrics: dict | None = None

    def mask_sources(self) -> list[str]:
        """Those that need no mark of a person."""
        return [name for name, kind in MASK_SOURCES.items() if not kind.reads]

    def compare(
        self, settings: Settings, sketch: Sketch, cut: Cut, sources: Sequence[str], systems: Sequence[str]
    ) -> Iterator[Compared]:
        """One answer after the other. MARKED among the sources is the region as it is on the page.

        Raises:
            ValueError: nothing to compare, a name that is not offered.
        """
        settings.check(self.studio.config)
        if not sources and not systems:
            raise ValueError("Choose at least two things to compare.")
        for name in (*sources, *systems):
            if name not in (MARKED, *MASK_SOURCES, *self.studio.config.systems):
                raise ValueError(f"system: {name!r} is not offered")
        settings = replace(settings, variants=1)
        config, request = settings.configuration(self.studio.editor.config), settings.request(sketch.picture)
        told = request.captions or self._described(request)
        for name, editor, asked in self._asked(config, settings, sketch, cut, sources, systems):
            answer = self._answer(name, editor, asked, told)
            told = told or (answer.result and answer.result.captions)
            yield answer

    def _described(self, request: EditRequest) -> Captions | None:
        """Captions for the scores of generators that need none; None where they cannot be described."""
        if self.studio.config.judge is None:
            return None
        with self.studio.lock:
            try:
                texts = tuple(instruction.text for instruction in request.instructions)
                return self.studio.editor.models.describer.describe([request.image], [texts])[0]
            except ValueError:
                return None

    def _asked(self, config, settings, sketch, cut, sources, systems) -> Iterator[tuple[str, Editor, EditRequest]]:
        models, request = self.studio.editor.models, settings.request(sketch.picture)
        for name in sources:
            if name == MARKED:
                plain = replace(config, region=replace(config.region, grow=0, feather=0.0))
                marked = settings.request(sketch.picture, sketch.mask(cut, config.region))
                yield name, Editor(plain, models), marked
            else:
                yield name, Editor(replace(config, mask_source=name), models), request
        for name in systems:
            yield name, self._system(name), request

    def _answer(self, name: str, editor: Editor, request: EditRequest, told: Captions | None) -> Compared:
        began = time.perf_counter()
        with self.studio.lock:
            try:
                (outcome,) = editor.edit_batch([request])
            except ValueError as error:
                outcome = EditFailure(request.id, " ".join(str(error).split()))
            seconds = time.perf_counter() - began
            if isinstance(outcome, EditFailure):
                return Compared(name, None, seconds, {}, outcome.reason)
            captions = outcome.captions if outcome.captions and outcome.captions.source else told
            return Compared(name, outcome, seconds, self._scores(outcome, replace(request, captions=captions)))

    def _system(self, name: str) -> Editor:
        from regionedit.evaluation.entries import system_editor

        if name not in self._systems:
            config = self.studio.config
            self._systems[name] = system_editor(
                name, EvaluateConfig(systems=config.systems, device=config.device, batch=config.batch)
            )
        return self._systems[name]

    def _scores(self, result: EditResult, request: EditRequest) -> dict[str, float]:
        """Those metrics of evaluate.py that need no truth."""
        from regionedit.evaluation import METRICS as ALL
        from regionedit.evaluation.outcomes import Outcome

        if self._metrics is None:
            config = self.studio.config
            judged = EvaluateConfig(device=config.device, judge=config.judge or "")
            wanted = METRICS if config.judge else ("l1_source",)
            self._metrics = {name: ALL[name].from_config(judged) for name in wanted}
        case = EditCase(request.id, request, "")
        outcome = Outcome(case, result.image)
        ready = {name: metric for name, metric in self._metrics.items() if metric.is_ready(outcome)}
        return {name: float(metric.score_all([outcome])[0]) for name, metric in ready.items()}


def sheet(answers: Sequence[Compared]) -> Image:
    """Source, then region above result for each system."""
    made = [answer for answer in answers if answer.result is not None]
    regions = [overlay(answer.result.source, answer.result.mask) for answer in made]
    source = made[0].result.source
    header = ["source", *(answer.system[:40] for answer in made)]
    return grid([[source, *regions], [source, *(answer.result.image for answer in made)]], header, cell=256)


def study_items(cases: Sequence[Sequence[Compared]], to: Path) -> Path:
    """The compared cases as a ZIP that `python -m regionedit.evaluation.human_study make` reads.

    `data/` is a benchmark of the kind `folder`; `systems/NAME/` holds each system's pictures. A case that a system
    failed is left out of its folder, and thereby out of the study.
    """
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        lines = []
        for number, answers in enumerate(cases, start=1):
            made = [answer for answer in answers if answer.result is not None]
            if not made:
                continue
            name, record = f"case_{number:03}", made[0].result.record
            archive.writestr(f"data/{name}.png", png(made[0].result.source))
            texts = [instruction["text"] for instruction in record["instructions"]]
            lines.append(json.dumps({"id": name, "image": f"{name}.png", "instructions": texts}))
            for answer in made:
                archive.writestr(f"systems/{_folder(answer.system)}/{name}.png", png(answer.result.image))
        archive.writestr("data/cases.jsonl", "\n".join(lines) + "\n")
    return to


def _folder(system: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in system)
