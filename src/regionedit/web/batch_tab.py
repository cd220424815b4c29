"""The tab that edits many pictures, by one instruction or a list: its uploads, live results, a ZIP at the end."""

# No postponed annotations, for the reason given in `edit_tab`.
import json
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from regionedit.batch import Item, edit_into, write_contact_sheet, write_failures
from regionedit.editor import Editor
from regionedit.files import LONGEST_NAME
from regionedit.images import SUFFIXES, open_picture, smaller
from regionedit.list_files import TABLES, list_lines
from regionedit.picture_folders import masks_beside
from regionedit.records import EditRequest
from regionedit.request_files import RequestFile, named, parse_requests
from regionedit.web import messages
from regionedit.web.handlers import AT_ONCE, SESSION, errors_shown
from regionedit.web.settings import Settings
from regionedit.web.studio import Studio

THUMBNAIL = 256
SHOWN = 60
"""The live gallery shows this many of the latest results; the ZIP has all of them."""
LISTS = (*TABLES, ".jsonl")
COPIES = ".uploads.json"
"""File with name -> path of its upload. Written after all copies are complete, so a partial copy is never reused."""


def batch_tab(studio: Studio, form: Sequence, jobs: Path) -> None:
    """Add the tab to the current Blocks.

    Args:
        form: components of `Settings` on the tab Edit; their generator settings apply here as well.
        jobs: folder for the files of all sessions; the server serves no file from it.
    """
    import gradio as gr

    # Each session has its own folder: pictures finished there are not edited again. It is deleted with the session, and
    # once more by an edit that was running then.
    open_folders: set[str] = set()

    def close(folder: str | None) -> None:
        if folder:
            open_folders.discard(folder)
            shutil.rmtree(folder, True)

    session_folder = gr.State(None, time_to_live=SESSION, delete_callback=close)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            files = gr.File(
                label="Pictures, optionally with masks (cat_mask.png) or a list (CSV, JSONL)",
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
            status = gr.HTML(messages.line(""), elem_id="batch-status")
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
        if not job:
            open_folders.add(str(folder))
        yield {session_folder: str(folder)}  # before it exists, so that a session that ends now deletes it
        try:
            yield from edited_into(folder, uploads, text, *values)
        finally:
            if str(folder) not in open_folders:
                shutil.rmtree(folder, True)

    def edited_into(folder: Path, uploads: list | None, text: str, *values):
        settings = replace(Settings(*values), instruction=text or "-", source_caption="", target_caption="")
        listed = [(Path(file["path"]), file.get("orig_name") or "") for file in uploads or []]
        requests = gather(studio, listed, settings, folder / "uploads")
        yield {
            status: messages.line(f"0 of {len(requests)}"),
            gallery: [],
            download: gr.DownloadButton(value=None, interactive=False),
        }
        shown, items = [], []
        for items in edit_all(studio, requests, settings, folder / "out"):
            new = items[-1]
            if not new.failure:
                result = open_picture(folder / "out" / new.id / "result.png", studio.config.max_pixels)
                shown = [*shown, (smaller(result, THUMBNAIL), new.id)][-SHOWN:]
            if len(items) % 4 and len(items) < len(requests):
                continue
            failed = [[item.id, item.failure] for item in items if item.failure]
            yield {
                status: messages.batch(items, len(requests)),
                gallery: shown,
                failures: gr.Dataframe(failed, visible=bool(failed)),
            }
        with tempfile.TemporaryDirectory() as temporary:
            ready = zipped(folder / "out", Path(temporary) / "regionedit_batch.zip")
            yield {download: gr.DownloadButton(value=str(ready), interactive=True)}

    running = run.click(
        errors_shown(edited),
        [files, session_folder, instruction, *form],
        [session_folder, status, gallery, failures, download],
        preprocess=False,
        concurrency_id="batch",
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=status,
        api_visibility="private",
    )
    cancelled = "Cancelled; press Edit all to continue."
    cancel.click(lambda: messages.line(cancelled), None, status, cancels=[running], **AT_ONCE)


def edit_all(studio: Studio, requests: Sequence, settings: Settings, out: Path) -> Iterator[list[Item]]:
    """Edit the requests into `out`; after each, yield the list of all finished items.

    Other users can use the models between two portions of the batch, so nobody waits until hundreds are finished.
    """
    config = settings.configuration(studio.editor.config)
    editor = Editor(config, studio.editor.models)
    edits = edit_into(editor, requests, out, config.batch, lambda request: open_request(studio, request))
    items: list[Item] = []
    for _ in requests:
        with studio.lock:
            items.append(next(edits))
        if len(items) == len(requests):
            write_failures(out, items)
            write_contact_sheet(out, [request.id for request in requests])
        yield items


def gather(studio: Studio, uploads: Sequence[tuple[Path, str]], settings: Settings, folder: Path) -> list[RequestFile]:
    """Copy the uploads into `folder` under their own names and return the requests.

    If they include a CSV or JSONL, its lines are the requests, with the fields of infer.py's `--requests`; they can
    name uploaded pictures only. Otherwise there is one request for each picture, with the instruction; `cat_mask.png`
    is the mask of `cat.png`.

    Args:
        uploads: (file, original name) of each upload.
        settings: the instruction, the seed and the generator's settings.
        folder: of this batch. Files of earlier batches are deleted; a file of the same upload is not copied again.

    Raises ValueError: too many files, nothing to edit, or a list that cannot be read; the message names the line.
    """
    settings.check(studio.config)
    if len(uploads) > studio.config.max_pictures:
        raise ValueError(f"files: {len(uploads)} given, at most {studio.config.max_pictures} are accepted")
    paths: dict[str, str] = {}
    for path, given in uploads:
        name = Path(given.replace("\\", "/")).name
        if Path(name).suffix.lower() not in (*SUFFIXES, *LISTS):
            raise ValueError(f"file {name[:40]!r}: neither a picture nor a list ({', '.join((*SUFFIXES, *LISTS))})")
        if not name.isprintable() or len(name.encode()) > LONGEST_NAME:
            raise ValueError(f"file {name[:40]!r}: rename it; its name is too long or has control characters")
        if name in paths:
            raise ValueError(f"file {name!r}: uploaded twice; give the files different names")
        paths[name] = str(path)
    copied = _clear_folder(folder, paths)
    for name, path in paths.items():
        if name not in copied:
            studio.check_size(Path(path), name)
            shutil.copyfile(path, folder / name)
    (folder / COPIES).write_text(json.dumps(paths))
    lists = [folder / name for name in paths if Path(name).suffix.lower() in LISTS]
    if len(lists) > 1:
        raise ValueError(f"files: {len(lists)} lists given; give one CSV or JSONL at a time")
    if lists:
        return _read_list(lists[0], folder, studio.config.max_pictures)
    if not paths:
        raise ValueError("files: choose pictures, optionally with a CSV or JSONL that has an instruction for each")
    files = [folder / name for name in paths]
    masks = {picture: mask for mask, picture in masks_beside(files).items()}
    pictures = [file for file in files if file not in masks.values()]
    return named([RequestFile(p, settings.instructions(), int(settings.seed), mask=masks.get(p)) for p in pictures])


def _clear_folder(folder: Path, paths: dict[str, str]) -> set[str]:
    """Delete everything in `folder` except copies of these uploads (name -> path); return the names of the copies."""
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads((folder / COPIES).read_text()) if (folder / COPIES).is_file() else {}
    copied = {name for name, path in paths.items() if before.get(name) == path and (folder / name).is_file()}
    for file in folder.iterdir():
        if file.name not in copied:
            file.unlink()
    return copied


def _read_list(path: Path, folder: Path, most: int) -> list[RequestFile]:
    lines = list_lines(path, f"file {path.name!r}")
    count = sum(bool(line.strip()) for line in lines)
    if count > most:
        raise ValueError(f"file {path.name!r}: {count} requests, at most {most} are accepted")
    return parse_requests(lines, folder, f"file {path.name!r}", _uploaded)


def _uploaded(field: str, name: str, folder: Path) -> Path:
    """The upload that a list names: a path could lead out of the folder, to other files of the server."""
    if Path(name).name != name or "\\" in name:
        raise ValueError(f"{field}: {name!r} is not the name of an uploaded file")
    if not (folder / name).is_file():
        raise ValueError(f"{field}: {name!r}: no such file; upload it together with the list")
    return folder / name


def open_request(studio: Studio, request: RequestFile) -> EditRequest:
    """Open picture and mask of a request; they hold their file names but no folder of the server."""
    picture = studio.open(request.image)
    mask = studio.open_mask(request.mask, picture, request.reading) if request.mask else None
    return request.with_pictures(picture, mask)


def zipped(out: Path, to: Path) -> Path:
    """Write all files of a batch to one ZIP, uncompressed because PNGs are compressed already."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in out.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(out))
    return to
