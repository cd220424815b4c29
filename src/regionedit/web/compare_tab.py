"""The tab that edits one request with several mask sources and editors: pictures, times and scores side by side."""

# No postponed annotations, for the reason given in `edit_tab`.
import json
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from regionedit.command_line import one_line
from regionedit.config import EvaluateConfig
from regionedit.display import grid, overlay
from regionedit.editor import Editor
from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.mask_sources import MASK_SOURCES
from regionedit.records import Captions, EditCase, EditFailure, EditRequest, EditResult
from regionedit.results import changed_outside
from regionedit.web import messages
from regionedit.web.edit_layout import EditLayout
from regionedit.web.edit_tab import EditTab, present
from regionedit.web.handlers import MODELS, SESSION, errors_shown
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch
from regionedit.web.studio import Studio, bare

METRICS = ("clip_text", "clip_direction", "l1_source")
MARKED = "corrected by hand"
COLUMNS = ("system", "seconds", "edited, %", "pixels changed outside", *METRICS)
MOST_CASES = 20
"""The human-study items contain at most this many of the session's cases, the latest ones."""


@dataclass(frozen=True)
class SystemResult:
    """The result of one system.

    Args:
        system: its name.
        edit: the edited picture, or None if it failed.
        seconds: of the whole edit, including the loading of models that were not loaded yet.
        scores: metric -> value, for the metrics that could be computed.
        failure: why there is no result, or empty.
    """

    system: str
    edit: EditResult | None
    seconds: float
    scores: dict[str, float]
    failure: str = ""

    def row(self) -> list:
        """The table row, with the cells of COLUMNS."""
        if self.edit is None:
            return [f"{self.system}: {self.failure}", *[""] * (len(COLUMNS) - 1)]
        outside = changed_outside(self.edit.source, self.edit.image, self.edit.mask)
        scores = [round(self.scores[name], 4) if name in self.scores else "" for name in METRICS]
        return [self.system, round(self.seconds, 2), round(100 * self.edit.share, 1), outside, *scores]


class Comparer:
    """Compares the page's editor with several mask sources, and other configurations.

    Other systems and the models of the metrics are loaded when they are first needed, and kept.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self._systems: dict[str, Editor] = {}

    def mask_sources(self) -> list[str]:
        """The mask sources that need no mark from the user; `vlm_box` only if its endpoint is configured."""
        unset = () if self.studio.config.region.vlm_box.endpoint else ("vlm_box",)
        return [name for name, kind in MASK_SOURCES.items() if not kind.marks and name not in unset]

    def compare(
        self, settings: Settings, sketch: Sketch, cut: Cut, sources: Sequence[str], systems: Sequence[str]
    ) -> Iterator[SystemResult]:
        """Yield one result after the other. The source MARKED stands for the region as it is on the page.

        Raises ValueError: nothing is chosen, a name is unknown, or (at the end) no system could edit the picture.
        """
        settings.check(self.studio.config)
        if not sources and not systems:
            raise ValueError("Choose at least one mask source or editor.")
        for name in (*sources, *systems):
            if name not in (MARKED, *MASK_SOURCES, *self.studio.config.systems):
                raise ValueError(f"system: {name!r} is not offered; choose one that the tab Compare lists")
        settings = replace(settings, variants=1)
        config, request = settings.configuration(self.studio.editor.config), settings.request(sketch.picture)
        captions = request.captions or self._described(request)
        failures: list[str] = []
        for name, editor, system_request in self._requests(config, settings, sketch, cut, sources, systems):
            one = self._edit(name, editor, system_request, captions)
            captions = captions or (one.edit and one.edit.captions)
            failures.append(one.failure)
            yield one
        if all(failures):
            raise ValueError(f"systems: none could edit the picture; the first error: {failures[0]}")

    def _described(self, request: EditRequest) -> Captions | None:
        """Captions for the scores of generators that need none; None if they cannot be described."""
        if self.studio.config.judge is None:
            return None
        with self.studio.lock:
            try:
                describer = self.studio.editor.models.describer(self.studio.editor.config)
                texts = tuple(instruction.text for instruction in request.instructions)
                return describer.describe([request.image], [texts])[0]
            except ValueError:
                return None

    def _requests(self, config, settings, sketch, cut, sources, systems) -> Iterator[tuple[str, Editor, EditRequest]]:
        models, request = self.studio.editor.models, settings.request(sketch.picture)
        for name in sources:
            if name == MARKED:
                marked = settings.request(sketch.picture, sketch.mask(cut, config.region))
                yield name, Editor(bare(config), models), marked
            else:
                yield name, Editor(replace(config, mask_source=name), models), request
        for name in systems:
            yield name, self._system(name), request

    def _edit(self, name: str, editor: Editor, request: EditRequest, captions: Captions | None) -> SystemResult:
        start = time.perf_counter()
        with self.studio.lock:
            try:
                (outcome,) = editor.edit_batch([request])
            except ValueError as error:
                outcome = EditFailure(request.id, one_line(error))
            seconds = time.perf_counter() - start
            if isinstance(outcome, EditFailure):
                return SystemResult(name, None, seconds, {}, outcome.reason)
            captions = outcome.captions if outcome.captions and outcome.captions.source else captions
            return SystemResult(name, outcome, seconds, self._scores(outcome, replace(request, captions=captions)))

    def _system(self, name: str) -> Editor:
        from regionedit.evaluation.entries import system_editor

        if name not in self._systems:
            config = self.studio.config
            self._systems[name] = system_editor(
                name, EvaluateConfig(systems=config.systems, device=config.device, batch=config.batch)
            )
        return self._systems[name]

    @cached_property
    def _metrics(self) -> dict:
        """The metrics of evaluate.py that need no truth."""
        from regionedit.evaluation import METRICS as ALL

        config = self.studio.config
        metric_config = EvaluateConfig(device=config.device, judge=config.judge or "")
        return {name: ALL[name].from_config(metric_config) for name in (METRICS if config.judge else ("l1_source",))}

    def _scores(self, result: EditResult, request: EditRequest) -> dict[str, float]:
        from regionedit.evaluation.outcomes import Outcome

        outcome = Outcome(EditCase(request.id, request, ""), result.image)
        return {
            name: float(metric.score_all([outcome])[0])
            for name, metric in self._metrics.items()
            if metric.is_ready(outcome)
        }


def compare_tab(comparer: Comparer, layout: EditLayout, edit: EditTab) -> None:
    """Add the tab to the current Blocks and connect its events."""
    import gradio as gr

    config = comparer.studio.config
    default = [name for name in comparer.mask_sources() if name == config.mask_source]
    past_cases = gr.State([], time_to_live=SESSION)
    gr.HTML(messages.line("Picture, instruction and settings come from the tab Edit."))
    sources = gr.CheckboxGroup(
        [MARKED, *comparer.mask_sources()],
        value=default,
        label="Where to edit",
        elem_id="compare-sources",
    )
    systems = gr.CheckboxGroup(
        list(config.systems),
        value=list(config.systems)[:1],
        label="Other editors",
        visible=bool(config.systems),
        elem_id="compare-systems",
    )
    run = gr.Button("Compare", variant="primary", elem_id="compare-run")
    status = gr.HTML(messages.line(""), elem_id="compare-status")
    picture = gr.Image(
        show_label=False, format="png", interactive=False, elem_id="compare-picture", buttons=["fullscreen"]
    )
    table = gr.Dataframe(headers=list(COLUMNS), label="Times and scores", interactive=False, elem_id="compare-table")
    with gr.Row():
        download = gr.DownloadButton("Download picture", interactive=False, elem_id="compare-download")
        study = gr.DownloadButton("Human-study items", interactive=False, elem_id="compare-study")

    def compared(sketch, cases, sources, systems, *values):
        cut, settings, sketch = Cut(*values[:3]), Settings(*values[3:]), present(sketch)
        results, total = [], len(sources) + len(systems)
        yield {status: messages.compared(0, total)}
        for result in comparer.compare(settings, sketch, cut, sources, systems):
            results.append(result)
            updates = {picture: sheet(results)} if any(one.edit for one in results) else {}
            rows = [one.row() for one in results]
            yield updates | {table: rows, status: messages.compared(len(results), total)}
        cases = [*cases, results][-MOST_CASES:]
        with tempfile.TemporaryDirectory() as temporary:
            shown, items = Path(temporary) / "comparison.png", Path(temporary) / "human_study_items.zip"
            write_atomic(shown, png(sheet(results)))
            study_items(cases, items)
            yield {
                past_cases: cases,
                download: gr.DownloadButton(value=str(shown), interactive=True),
                study: gr.DownloadButton(f"Human-study items ({len(cases)})", value=str(items), interactive=True),
            }

    run.click(
        errors_shown(compared),
        [edit.sketch, past_cases, sources, systems, *layout.cut, *layout.form.values()],
        [past_cases, status, picture, table, download, study],
        show_progress="minimal",
        show_progress_on=status,
        **MODELS,
    )


def sheet(results: Sequence[SystemResult]) -> Image.Image:
    """A picture of the comparison: the source, then for each system its region above its result."""
    finished = [one for one in results if one.edit is not None]
    regions = [overlay(one.edit.source, one.edit.mask) for one in finished]
    source = finished[0].edit.source
    header = ["source", *(one.system[:40] for one in finished)]
    return grid([[source, *regions], [source, *(one.edit.image for one in finished)]], header, cell=256)


def study_items(cases: Sequence[Sequence[SystemResult]], to: Path) -> Path:
    """Write the compared cases to the ZIP `to`, as input of `python -m regionedit.evaluation.human_study make`.

    `data/` is a benchmark of the kind `folder`; `systems/NAME/` has each system's pictures. A case that a system failed
    is missing in its folder, so the study leaves it out.
    """
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        lines = []
        for number, results in enumerate(cases, start=1):
            finished = [one for one in results if one.edit is not None]
            if not finished:
                continue
            name, record = f"case_{number:03}", finished[0].edit.record
            archive.writestr(f"data/{name}.png", png(finished[0].edit.source))
            texts = [instruction["text"] for instruction in record["instructions"]]
            lines.append(json.dumps({"id": name, "image": f"{name}.png", "instructions": texts}))
            for one in finished:
                archive.writestr(f"systems/{_folder(one.system)}/{name}.png", png(one.edit.image))
        archive.writestr("data/cases.jsonl", "\n".join(lines) + "\n")
    return to


def _folder(system: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in system)
