"""Edits one request with several mask sources and editors: pictures, times and scores side by side."""

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
    """The result of one system.

    Args:
        system: its name.
        result: the edit, or None if it failed.
        seconds: of the whole edit, including the loading of models that were not loaded yet.
        scores: metric -> value, for the metrics that could be computed.
        failure: why there is no result, or empty.
    """

    system: str
    result: EditResult | None
    seconds: float
    scores: dict[str, float]
    failure: str = ""

    def row(self) -> list:
        """The table row, with the cells of COLUMNS."""
        if self.result is None:
            return [f"{self.system}: {self.failure}", *[""] * (len(COLUMNS) - 1)]
        outside = changed_outside(self.result.source, self.result.image, self.result.mask)
        scores = [round(self.scores[name], 4) if name in self.scores else "" for name in METRICS]
        return [self.system, round(self.seconds, 2), round(100 * self.result.share, 1), outside, *scores]


class Comparer:
    """Compares the page's editor with several mask sources, and other configurations.

    Other systems and the models of the metrics are loaded when they are first needed, and kept.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self._systems: dict[str, Editor] = {}
        self._metrics: dict | None = None

    def mask_sources(self) -> list[str]:
        """The mask sources that need no mark from the user."""
        return [name for name, kind in MASK_SOURCES.items() if not kind.marks]

    def compare(
        self, settings: Settings, sketch: Sketch, cut: Cut, sources: Sequence[str], systems: Sequence[str]
    ) -> Iterator[Compared]:
        """Yield one result after the other. The source MARKED stands for the region as it is on the page.

        Raises:
            ValueError: nothing to compare, or an unknown name.
        """
        settings.check(self.studio.config)
        if not sources and not systems:
            raise ValueError("Choose at least two mask sources or editors to compare.")
        for name in (*sources, *systems):
            if name not in (MARKED, *MASK_SOURCES, *self.studio.config.systems):
                raise ValueError(f"system: {name!r} is not offered; choose one that the tab Compare lists")
        settings = replace(settings, variants=1)
        config, request = settings.configuration(self.studio.editor.config), settings.request(sketch.picture)
        captions = request.captions or self._described(request)
        for name, editor, system_request in self._requests(config, settings, sketch, cut, sources, systems):
            answer = self._answer(name, editor, system_request, captions)
            captions = captions or (answer.result and answer.result.captions)
            yield answer

    def _described(self, request: EditRequest) -> Captions | None:
        """Captions for the scores of generators that need none; None if they cannot be described."""
        if self.studio.config.judge is None:
            return None
        with self.studio.lock:
            try:
                texts = tuple(instruction.text for instruction in request.instructions)
                return self.studio.editor.models.describer(self.studio.editor.config).describe(
                    [request.image], [texts]
                )[0]
            except ValueError:
                return None

    def _requests(self, config, settings, sketch, cut, sources, systems) -> Iterator[tuple[str, Editor, EditRequest]]:
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

    def _answer(self, name: str, editor: Editor, request: EditRequest, captions: Captions | None) -> Compared:
        start = time.perf_counter()
        with self.studio.lock:
            try:
                (outcome,) = editor.edit_batch([request])
            except ValueError as error:
                outcome = EditFailure(request.id, " ".join(str(error).split()))
            seconds = time.perf_counter() - start
            if isinstance(outcome, EditFailure):
                return Compared(name, None, seconds, {}, outcome.reason)
            captions = outcome.captions if outcome.captions and outcome.captions.source else captions
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
        """Compute the metrics of evaluate.py that need no truth."""
        from regionedit.evaluation import METRICS as ALL
        from regionedit.evaluation.outcomes import Outcome

        if self._metrics is None:
            config = self.studio.config
            metric_config = EvaluateConfig(device=config.device, judge=config.judge or "")
            metrics = METRICS if config.judge else ("l1_source",)
            self._metrics = {name: ALL[name].from_config(metric_config) for name in metrics}
        case = EditCase(request.id, request, "")
        outcome = Outcome(case, result.image)
        ready = {name: metric for name, metric in self._metrics.items() if metric.is_ready(outcome)}
        return {name: float(metric.score_all([outcome])[0]) for name, metric in ready.items()}


def sheet(answers: Sequence[Compared]) -> Image:
    """A picture of the comparison: the source, then for each system its region above its result."""
    finished = [answer for answer in answers if answer.result is not None]
    regions = [overlay(answer.result.source, answer.result.mask) for answer in finished]
    source = finished[0].result.source
    header = ["source", *(answer.system[:40] for answer in finished)]
    return grid([[source, *regions], [source, *(answer.result.image for answer in finished)]], header, cell=256)


def study_items(cases: Sequence[Sequence[Compared]], to: Path) -> Path:
    """Write the compared cases to the ZIP `to`, as input of `python -m regionedit.evaluation.human_study make`.

    `data/` is a benchmark of the kind `folder`; `systems/NAME/` has each system's pictures. A case that a system failed
    is missing in its folder, so the study leaves it out.
    """
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        lines = []
        for number, answers in enumerate(cases, start=1):
            finished = [answer for answer in answers if answer.result is not None]
            if not finished:
                continue
            name, record = f"case_{number:03}", finished[0].result.record
            archive.writestr(f"data/{name}.png", png(finished[0].result.source))
            texts = [instruction["text"] for instruction in record["instructions"]]
            lines.append(json.dumps({"id": name, "image": f"{name}.png", "instructions": texts}))
            for answer in finished:
                archive.writestr(f"systems/{_folder(answer.system)}/{name}.png", png(answer.result.image))
        archive.writestr("data/cases.jsonl", "\n".join(lines) + "\n")
    return to


def _folder(system: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in system)
