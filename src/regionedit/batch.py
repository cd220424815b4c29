"""Many requests edited into a folder: in portions, on one device or several, going on where it stopped."""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from regionedit.display import grid
from regionedit.editor import Editor
from regionedit.files import write_atomic
from regionedit.images import png, smaller
from regionedit.records import EditFailure, EditRequest

if TYPE_CHECKING:
    from regionedit.config import EditConfig
    from regionedit.request_files import RequestFile

CELL = 128
SHEET_COLUMNS, SHEET_ITEMS = 4, 200
"""Of a contact sheet: results beside each other, and how many at most."""


@dataclass(frozen=True)
class Item:
    """What became of one request.

    Args:
        id: of the request.
        share: of the picture's pixels that were edited, or None where it failed or was finished before.
        failure: why it failed, or empty.
    """

    id: str
    share: float | None = None
    failure: str = ""


def edit_into(
    editor: Editor,
    requests: Sequence[RequestFile],
    out: Path,
    portion: int,
    opened: Callable[[RequestFile], EditRequest] | None = None,
) -> Iterator[Item]:
    """Edit requests into `out`/{id}/, as `EditResult.save` writes them; those that are finished there are skipped.

    Args:
        portion: requests opened at one time; pictures of one size find each other within it.
        opened: opens a request; None: within the editor's `max_pixels`.
    """
    opened = opened or (lambda request: request.open(editor.config.max_pixels))
    for start in range(0, len(requests), portion):
        todo: list[EditRequest] = []
        for request in requests[start : start + portion]:
            try:
                ready = opened(request)
                if is_finished(out / request.id / "run.json", editor, ready):
                    yield Item(request.id)
                else:
                    todo.append(ready)
            except ValueError as error:
                yield Item(request.id, failure=" ".join(str(error).split()))
        for outcome in editor.edit_batch(todo):
            if isinstance(outcome, EditFailure):
                yield Item(outcome.id, failure=outcome.reason)
            else:
                outcome.save(out / outcome.id)
                yield Item(outcome.id, outcome.share)


def is_finished(record: Path, editor: Editor, request: EditRequest) -> bool:
    """Whether this run.json tells of the same edit: picture, words, region, settings and weights."""
    try:
        return json.loads(record.read_text())["digest"] == editor.digest(request)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def edit_in_parallel(
    config: EditConfig, requests: Sequence[RequestFile], out: Path, portion: int, workers: int
) -> Iterator[Item]:
    """As `edit_into`, by several processes, each with the models on a device of its own where there are several.

    Raises:
        ValueError: the configuration lacks something; a worker died.
    """
    processes = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    items = processes.Queue()
    devices = _devices(config.device, workers)
    started = [
        processes.Process(
            target=_work,
            args=(replace(config, device=device), list(requests[k::workers]), out, portion, workers, items),
            daemon=True,
        )
        for k, device in enumerate(devices)
    ]
    for process in started:
        process.start()
    waiting = len(started)
    try:
        while waiting:
            try:
                item = items.get(timeout=1)
            except queue.Empty:
                dead = [process.exitcode for process in started if process.exitcode]
                if dead:
                    raise ValueError(f"workers: one stopped with {dead[0]}; run the same command again") from None
                continue
            if item is None:
                waiting -= 1
            elif isinstance(item, str):
                raise ValueError(item)
            else:
                yield item
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _devices(wanted: str, workers: int) -> list[str]:
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{k % torch.cuda.device_count()}" for k in range(workers)]
    return [wanted] * workers


def _work(config, requests, out: Path, portion: int, workers: int, items) -> None:
    """One worker: its items, then None; or why there can be none, as a string."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    try:
        for item in edit_into(Editor.from_config(config), requests, out, portion):
            items.put(item)
        items.put(None)
    except (ValueError, OSError) as error:
        items.put(" ".join(str(error).split()))


def write_failures(out: Path, items: Sequence[Item]) -> None:
    """failures.jsonl with a line for each request that failed; empty where none did."""
    lines = [json.dumps({"id": item.id, "reason": item.failure}) + "\n" for item in items if item.failure]
    write_atomic(out / "failures.jsonl", "".join(lines).encode())


def write_contact_sheet(out: Path, ids: Sequence[str]) -> None:
    """contact_sheet.png: region and result of the first finished requests; none where nothing is finished."""
    finished = [name for name in ids if (out / name / "run.json").is_file()][:SHEET_ITEMS]
    cells = [_small(out / name / file) for name in finished for file in ("overlay.png", "result.png")]
    across = 2 * SHEET_COLUMNS
    if cells:
        rows = [cells[start : start + across] for start in range(0, len(cells), across)]
        write_atomic(out / "contact_sheet.png", png(grid(rows, ["region", "result"] * (len(rows[0]) // 2), CELL)))


def _small(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return smaller(picture.convert("RGB"), CELL)
