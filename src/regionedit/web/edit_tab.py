"""The tab that edits one picture: find the region, correct it, edit, compare before and after, download."""

# No postponed annotations here: Gradio reads the handlers' annotations to find those that take an event's data, and
# gradio itself is imported only inside the functions.
import io
import tempfile
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from regionedit.config import RegionConfig
from regionedit.display import difference
from regionedit.images import data_uri, digest, to_tensor
from regionedit.mask_files import MaskReading
from regionedit.records import EditResult
from regionedit.result_files import open_raster
from regionedit.results import Patch, changed_outside, compose
from regionedit.web import messages
from regionedit.web.edit_layout import EditLayout
from regionedit.web.handlers import AT_ONCE, MODELS, QUICK, SESSION, errors_shown, streamed
from regionedit.web.result_file import result_png
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch, stroke_mask
from regionedit.web.studio import Studio

LOSSLESS = 400_000
"""Pictures with at most this many pixels are sent as PNG, larger ones as JPEG."""

INTO_VIEW = "() => document.querySelector('#result').scrollIntoView({behavior: 'smooth', block: 'nearest'})"


class EditTab(NamedTuple):
    """What other tabs use: the states `sketch` and `results`, and the event `finished` after which `results` is new."""

    sketch: Any
    results: Any
    finished: Any


def connect(layout: EditLayout, studio: Studio) -> EditTab:
    """Connect the events of the tab's components."""
    import gradio as gr

    sketch, results = gr.State(None, time_to_live=SESSION), gr.State([], time_to_live=SESSION)
    region = [sketch, layout.view, layout.region_line]
    captions = [layout.form["source_caption"], layout.form["target_caption"]]
    _connect_region(layout, studio, sketch, region, captions)

    shown = [layout.slider, layout.status, layout.difference, layout.download, layout.layers, layout.details]
    buttons = [layout.edit, layout.cancel]

    def edited(sketch: Sketch | None, *values):
        cut, settings, sketch = Cut(*values[:3]), Settings(*values[3:]), present(sketch)
        yield {layout.status: messages.progress(0, int(settings.num_inference_steps))}
        if sketch.is_stale(settings.instruction):  # the user always sees the region that is edited
            before, sketch = sketch, studio.find(settings, sketch)
            cut = sketch.cut_after(before, cut, studio.config.region)
            found = [*region_values(sketch, cut, studio.config.region), *astuple(cut), *caption_values(sketch)]
            yield dict(zip([*region, *layout.cut, *captions], [sketch, *found], strict=True))
        for update in streamed(lambda report: _edit(studio, settings, sketch, cut, report)):
            if isinstance(update, tuple):
                step, steps, picture = update
                preview = {} if picture is None else {layout.slider: (sketch.picture, picture)}
                yield {layout.status: messages.progress(step, steps)} | preview
                continue
            variants = [(result.image, f"seed {result.record['seed']}") for result in update]
            with tempfile.TemporaryDirectory() as folder:  # Gradio has copied the file before it resumes
                made = dict(zip(shown, result_values(update[0], folder), strict=True))
                yield made | {results: update, layout.gallery: gr.Gallery(variants, visible=len(update) > 1)}

    def chosen(results: list, event: gr.SelectData):
        with tempfile.TemporaryDirectory() as folder:
            yield result_values(results[event.index], folder)

    def buttons_for(running: bool):
        return gr.Button(visible=not running), gr.Button(visible=running)

    clicked = layout.edit.click(
        lambda: (*buttons_for(True), gr.Row(visible=True)), None, [*buttons, layout.result], **AT_ONCE
    )
    running = clicked.then(
        errors_shown(edited),
        [sketch, *layout.cut, *layout.form.values()],
        [*shown, *region, *layout.cut, *captions, results, layout.gallery],
        show_progress="minimal",
        show_progress_on=layout.status,
        **MODELS,
    )
    running.then(lambda: buttons_for(False), None, buttons, **AT_ONCE)
    running.success(None, js=INTO_VIEW, api_visibility="private")
    layout.cancel.click(
        lambda: (*buttons_for(False), messages.line("Cancelled.")),
        None,
        [*buttons, layout.status],
        cancels=[running],
        **AT_ONCE,
    )
    layout.gallery.select(errors_shown(chosen), [results], shown, show_progress="hidden", api_visibility="private")
    return EditTab(sketch, results, running)


def _connect_region(layout: EditLayout, studio: Studio, sketch: Any, region: list, captions: list) -> None:
    """Connect the upload, the button Find region, the sliders and the canvas."""
    import gradio as gr

    config = studio.config.region

    def with_region(sketch: Sketch, *cut: float):
        return sketch, *region_values(sketch, Cut(*cut), config)

    def with_sliders(before: Sketch | None, sketch: Sketch, *cut: float):
        """As `with_region` for another sketch than before, with values for the sliders."""
        cut = astuple(sketch.cut_after(before, Cut(*cut), config))
        return *with_region(sketch, *cut), *cut

    def opened(file: dict | None, sketch: Sketch | None, *cut: float):
        if file is None:
            return None, None, messages.line(""), *[gr.skip()] * 5
        picture = studio.open(file["path"], file.get("orig_name") or "")
        if sketch is not None and digest(sketch.picture) == digest(picture):
            return *with_region(sketch, *cut), *[gr.skip()] * 5
        return *with_sliders(sketch, Sketch(picture), *cut), "", ""

    def found(sketch: Sketch | None, *values):
        new = studio.find(Settings(*values[3:]), present(sketch))
        return *with_sliders(sketch, new, *values[:3]), *caption_values(new)

    def recut(sketch: Sketch | None, *cut: float):
        return (None, messages.line("")) if sketch is None else region_values(sketch, Cut(*cut), config)

    def painted(sketch: Sketch | None, threshold: float, grow: float, feather: float, event: gr.EventData):
        stroke = stroke_mask(present(sketch).picture.size, event.points, event.radius)
        return with_region(sketch.corrected(stroke, adds=event.tool == "paint"), threshold, grow, feather)

    def picked(sketch: Sketch | None, threshold: float, grow: float, feather: float, event: gr.EventData):
        selected = studio.object_at(present(sketch).picture, event.point)
        if selected.getbbox() is None:
            raise ValueError("No object was found there; click the middle of an object, or paint it.")
        return with_region(sketch.corrected(selected, adds=event.tool == "take"), threshold, grow, feather)

    def masked(file: dict | None, meaning: str, sketch: Sketch | None, *cut: float):
        sketch = present(sketch)
        if file is None:
            return *with_region(sketch, *cut), *cut
        mask = studio.open_mask(file["path"], sketch.picture, MaskReading(meaning), file.get("orig_name") or "")
        return with_sliders(sketch, Sketch.masked(sketch.picture, mask), *cut)

    def changed(change: Callable[[Sketch, Cut], Sketch]):
        def handler(sketch: Sketch | None, *cut: float):
            return with_region(change(present(sketch), Cut(*cut)), *cut)

        return errors_shown(handler)

    def operated(operation: str):
        return changed(lambda sketch, cut: sketch.operated(operation, cut, config))

    inputs, instruction = [sketch, *layout.cut], layout.form["instruction"]
    layout.picture.change(
        errors_shown(opened), [layout.picture, *inputs], [*region, *layout.cut, *captions], preprocess=False, **QUICK
    )
    instruction.input(lambda: ("", ""), None, captions, **AT_ONCE)
    for trigger in (layout.find.click, instruction.submit):
        trigger(
            errors_shown(found),
            [*inputs, *layout.form.values()],
            [*region, *layout.cut, *captions],
            show_progress="minimal",
            show_progress_on=layout.region_line,
            **MODELS,
        )
    for slider in layout.cut:
        slider.change(errors_shown(recut), inputs, region[1:], trigger_mode="always_last", **AT_ONCE)
    layout.mask_file.upload(
        errors_shown(masked),
        [layout.mask_file, layout.mask_is, *inputs],
        [*region, *layout.cut],
        preprocess=False,
        **QUICK,
    )
    for name, button in layout.operations.items():
        button.click(operated(name), inputs, region, **QUICK)
    layout.view.stroke(errors_shown(painted), inputs, region, **QUICK)
    layout.view.pick(errors_shown(picked), inputs, region, show_progress="hidden", **MODELS)
    layout.view.undo(changed(lambda sketch, _: sketch.undone()), inputs, region, **QUICK)
    layout.view.clear(changed(lambda sketch, _: sketch.cleared()), inputs, region, **QUICK)


def _edit(studio: Studio, settings: Settings, sketch: Sketch, cut: Cut, report) -> list[EditResult]:
    """Edit, and pass (step, steps, preview of the first variant or None) to `report` after each step."""
    region = sketch.mask(cut, studio.config.region)

    def preview(step, steps, pictures):
        inside = None
        if pictures is not None and region.getbbox():
            patch = Patch((0, 0, *region.size), to_tensor([pictures[0]])[0])
            inside = compose(sketch.picture, [patch], region)
        report((step, steps, inside))

    return studio.edit(settings, sketch, cut, preview)


def present(sketch: Sketch | None) -> Sketch:
    """The sketch itself. Raises ValueError: no picture was chosen."""
    if sketch is None:
        raise ValueError("Choose a picture first: drop one into the box at the top, or click an example.")
    return sketch


def region_values(sketch: Sketch, cut: Cut, config: RegionConfig) -> tuple[dict, str]:
    """Values for the canvas and for the line below it."""
    mask = sketch.mask(cut, config)
    share = 1 - mask.histogram()[0] / (mask.width * mask.height)
    view = _canvas_value(sketch.shown(cut, config), sketch.picture.size)
    return view, messages.line(messages.region(sketch.found, share, mask.info.get("notes", ())))


def _canvas_value(shown: Image.Image, size: tuple[int, int]) -> dict[str, Any]:
    """What the canvas element receives: the picture as a data URL, and `size`, the (width, height) of the original, in
    whose pixels the canvas reports strokes."""
    buffer = io.BytesIO()
    kind = "png" if shown.width * shown.height <= LOSSLESS else "jpeg"
    shown.save(buffer, kind, quality=88)  # a PNG has no quality
    return {"src": data_uri(buffer.getvalue(), kind), "width": size[0], "height": size[1]}


def caption_values(sketch: Sketch) -> tuple[str, str]:
    """Values for the two captions; empty if nothing needed them or they could not be described."""
    captions = sketch.found.captions
    return (captions.source, captions.target) if captions else ("", "")


def result_values(result: EditResult, folder: str) -> tuple:
    """Values for slider, status, difference, downloads and details; writes the files to download to `folder`."""
    import gradio as gr

    outside = changed_outside(result.source, result.image, result.mask)
    name = Path(folder) / f"{result.id}_edited.png"
    name.write_bytes(result_png(result))
    layers = gr.skip()
    if result.layers:
        layered = Path(folder) / f"{result.id}_edited.ora"
        layered.write_bytes(open_raster(result.source, result.image, result.mask))
        layers = gr.DownloadButton(value=str(layered), interactive=True)
    return (
        (result.source, result.image),
        messages.line(messages.result(result, outside), "bad" if outside else "good"),
        difference(result.source, result.image),
        gr.DownloadButton(value=str(name), interactive=True),
        layers,
        result.record,
    )
