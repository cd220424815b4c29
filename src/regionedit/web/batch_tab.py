"""The tab that edits many pictures, by one instruction or a list: live results, resumable, a ZIP at the end."""

# No postponed annotations, for the reason given in `edit_tab`.
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from regionedit.batch import Item, edit_into, write_contact_sheet, write_failures
from regionedit.editor import Editor
from regionedit.images import smaller
from regionedit.web import words
from regionedit.web.batch_files import gather, opened, zipped
from regionedit.web.handlers import AT_ONCE, SESSION, errors_shown
from regionedit.web.settings import Settings
from regionedit.web.studio import Studio

THUMBNAIL = 256
SHOWN = 60
"""The live gallery shows this many of the latest results; the ZIP has all of them."""


def batch_tab(studio: Studio, form: Sequence, jobs: Path) -> None:
    """Add the tab to the current Blocks.

    Args:
        form: components of `Settings` on the tab Edit; their generator settings apply here as well.
        jobs: folder for the files of all sessions; the server serves no file from it.
    """
    import gradio as gr

    # Each session has its own folder: pictures finished there are not edited again. It is deleted with the session.
    job = gr.State(None, time_to_live=SESSION, delete_callback=lambda folder: folder and shutil.rmtree(folder, True))
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            files = gr.File(
                label="Pictures, optionally with a list (CSV, JSONL)",
                file_count="multiple",
                height=220,
                elem_id="batch-files",
            )
            instruction = gr.Textbox(
                label="What to change in every picture",
                info="Ignored if there is a list. Steps, guidance and seed come from the tab Edit.",
                elem_id="batch-instruction",
            )
            with gr.Row():
                run = gr.Button("Edit all", variant="primary", elem_id="batch-run", min_width=120)
                cancel = gr.Button("Cancel", variant="stop", elem_id="batch-cancel", min_width=120)
            status = gr.HTML(words.line(""), elem_id="batch-status")
            download = gr.DownloadButton("Download ZIP", interactive=False, elem_id="batch-download")
        with gr.Column(min_width=320):
            gallery = gr.Gallery(
                label="Results", format="jpeg", columns=4, height=420, buttons=[], elem_id="batch-gallery"
            )
            failures = gr.Dataframe(
                headers=["picture", "reason"], label="Failed", visible=False, elem_id="batch-failures"
            )

    def edited(uploads: list | None, job: str | None, text: str, *values):
        folder = Path(job) if job else jobs / secrets.token_hex(8)
        settings = replace(Settings(*values), instruction=text or "-", source_caption="", target_caption="")
        listed = [(Path(file["path"]), file.get("orig_name") or "") for file in uploads or []]
        requests = gather(studio, listed, settings, folder / "uploads")
        yield {job_state: str(folder), status: words.line(f"0 of {len(requests)}"), gallery: [], download: waiting()}
        shown, items = [], []
        for items in edit_all(studio, requests, settings, folder / "out"):
            new = items[-1]
            if not new.failure:
                with Image.open(folder / "out" / new.id / "result.png") as picture:
                    shown = [*shown, (smaller(picture.convert("RGB"), THUMBNAIL), new.id)][-SHOWN:]
            if len(items) % 4 and len(items) < len(requests):
                continue
            failed = [[item.id, item.failure] for item in items if item.failure]
            yield {
                status: words.batch(items, len(requests)),
                gallery: shown,
                failures: gr.Dataframe(failed, visible=bool(failed)),
            }
        with tempfile.TemporaryDirectory() as temporary:
            ready = zipped(folder / "out", Path(temporary) / "regionedit_batch.zip")
            yield {download: gr.DownloadButton(value=str(ready), interactive=True)}

    def waiting():
        return gr.DownloadButton(value=None, interactive=False)

    job_state = job
    running = run.click(
        errors_shown(edited),
        [files, job, instruction, *form],
        [job, status, gallery, failures, download],
        preprocess=False,
        concurrency_id="batch",
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=status,
        api_visibility="private",
    )
    cancelled = "Cancelled; press Edit all to continue."
    cancel.click(lambda: words.line(cancelled), None, status, cancels=[running], **AT_ONCE)


def edit_all(studio: Studio, requests: Sequence, settings: Settings, out: Path) -> Iterator[list[Item]]:
    """Edit the requests into `out`; after each, yield the list of all finished items.

    Other users can use the models between two portions of the batch, so nobody waits until hundreds are finished.
    """
    config = settings.configuration(studio.editor.config)
    editor = Editor(config, studio.editor.models)
    edits = edit_into(editor, requests, out, config.batch, lambda request: opened(studio, request))
    items: list[Item] = []
    while True:
        with studio.lock:
            item = next(edits, None)
        if item is None:
            break
        items.append(item)
        if len(items) == len(requests):
            write_failures(out, items)
            write_contact_sheet(out, [request.id for request in requests])
        yield items
