"""The tab with the session's results, which also restores the settings from a downloaded PNG."""

# No postponed annotations, for the reason given in `edit_tab`.
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from regionedit.images import smaller
from regionedit.web import messages
from regionedit.web.edit_layout import EditLayout
from regionedit.web.edit_tab import EditTab, region_values
from regionedit.web.handlers import AT_ONCE, QUICK, SESSION, errors_shown
from regionedit.web.result_file import RESTORED, read_result_png, restored, result_png
from regionedit.web.sketch import Sketch
from regionedit.web.studio import Studio

MOST_RESULTS = 30
"""The session keeps this many of its latest results."""

THUMBNAIL = 256
AGAIN = "Edit makes the same picture again"
ANOTHER = "the file comes from an earlier version, where seeds gave other noise, so Edit makes another picture"


@dataclass(frozen=True)
class PastResult:
    """A result of the session.

    Args:
        file: its PNG, as `result_png` makes it.
        thumbnail: a small copy of the result.
        source: the picture that was edited; results of one picture share it.
        name: file name of the download.
        caption: shown below the thumbnail.
    """

    file: bytes
    thumbnail: Image.Image
    source: Image.Image
    name: str
    caption: str


def history_tab(studio: Studio, layout: EditLayout, edit: EditTab, tabs: Any) -> None:
    """Add the tab to the current Blocks and connect its events."""
    import gradio as gr

    kept, picked = gr.State([], time_to_live=SESSION), gr.State(None, time_to_live=SESSION)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            gallery = gr.Gallery(
                label="Results of this session",
                format="png",
                columns=4,
                height=360,
                object_fit="contain",
                allow_preview=False,
                buttons=[],
                elem_id="history",
            )
            with gr.Row():
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="history-download")
                restore = gr.Button("Restore its settings", interactive=False, elem_id="history-restore")
        with gr.Column(min_width=320):
            dropped = gr.File(
                label="Reproduce: drop a PNG that you downloaded here",
                file_types=[".png"],
                height=160,
                elem_id="reproduce",
            )
            gr.HTML(messages.line("The source must be on the tab Edit or among this session's results."))

    def keep(results: list, kept: list):
        new = [
            PastResult(
                result_png(result),
                smaller(result.image, THUMBNAIL),
                result.source,
                f"{result.id}_edited.png",
                f"{'; '.join(i['text'] for i in result.record['instructions'])} (seed {result.record['seed']})",
            )
            for result in results
        ]
        kept = [*kept, *new][-MOST_RESULTS:]
        return kept, [(one.thumbnail, one.caption) for one in kept]

    def chosen(kept: list, event: gr.SelectData):
        one = kept[event.index]
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / one.name
            path.write_bytes(one.file)
            yield one, gr.DownloadButton(value=str(path), interactive=True), gr.Button(interactive=True)

    def restored_from(path: Path, sketch: Sketch | None, kept: list):
        record, mask = read_result_png(path, studio.config.max_pixels)
        known = [one.source for one in kept] + ([sketch.picture] if sketch else [])
        settings, sketch, cut = restored(record, mask, known, studio.config.region)
        view, line = region_values(sketch, cut, studio.config.region)
        same = sketch.found.note == RESTORED
        form = dict(zip(layout.form.values(), astuple(settings), strict=True))
        return (
            form
            | dict(zip(layout.cut, astuple(cut), strict=True))
            | {
                edit.sketch: sketch,
                layout.view: view,
                layout.region_line: line,
                layout.status: messages.line(f"All settings are restored: {AGAIN if same else ANOTHER}."),
                tabs: gr.Tabs(selected="edit"),
            }
        )

    def restored_kept(one: PastResult | None, sketch: Sketch | None, kept: list):
        if one is None:
            raise ValueError("Choose a result first.")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "kept.png"
            path.write_bytes(one.file)
            return restored_from(path, sketch, kept)

    def restored_file(file: dict | None, sketch: Sketch | None, kept: list):
        if file is None:
            return {layout.status: gr.skip()}
        studio.check_size(Path(file["path"]), file.get("orig_name") or "")
        return restored_from(Path(file["path"]), sketch, kept)

    everything = [edit.sketch, layout.view, layout.region_line, layout.status, tabs]
    everything += [*layout.cut, *layout.form.values()]
    edit.finished.success(keep, [edit.results, kept], [kept, gallery], **AT_ONCE)
    gallery.select(
        errors_shown(chosen),
        [kept],
        [picked, download, restore],
        show_progress="hidden",
        api_visibility="private",
    )
    restore.click(errors_shown(restored_kept), [picked, edit.sketch, kept], everything, **QUICK)
    dropped.upload(errors_shown(restored_file), [dropped, edit.sketch, kept], everything, preprocess=False, **QUICK)
