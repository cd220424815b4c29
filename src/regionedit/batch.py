"""Edit many requests into a folder: in portions, on one or several devices, and resumable."""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.command_line import one_line
from regionedit.display import grid
from regionedit.editor import Editor
from regionedit.error_log import write_traceback
from regionedit.files import remove_leftovers, write_atomic
from regionedit.images import open_picture, png, smaller
from regionedit.records import EditFailure, EditRequest

if TYPE_CHECKING:
    from PIL import Image

    from regionedit.config import EditConfig
    from regionedit.request_files import RequestFile

CELL = 128
ANY_SIZE = 2**40  # pixels; results are as large as what was accepted
SHEET_COLUMNS, SHEET_ITEMS = 4, 200
"""Contact sheet: results in a row, and the maximum number of results."""


@dataclass(frozen=True)
class Item:
    """Outcome of one request.

    Args:
        id: id of the request.
        share: edited share of the picture's pixels; None if the request failed or was finished in an earlier run.
        failure: reason of the failure, or empty.
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
    """Edit requests and save them into `out`/{id}/ with `EditResult.save`; finished ones keep their files.

    Args:
        portion: how many requests are opened at a time; pictures of equal size are batched within a portion.
        opened: function that opens a request; None opens it with the editor's `max_pixels` as limit.
    """
    opened = opened or (lambda request: request.open(editor.config.max_pixels))
    for start in range(0, len(requests), portion):
        readable: list[EditRequest] = []
        finished: set[int] = set()
        for request in requests[start : start + portion]:
            try:
                ready = opened(request)
                readable.append(ready)
                if is_finished(out / request.id / "run.json", editor, ready):
                    finished.add(len(readable) - 1)
                    yield Item(request.id)
            except ValueError as error:
                yield Item(request.id, failure=one_line(error))
        if len(finished) == len(readable):
            continue
        for outcome in editor.edit_batch(readable, finished):
            if isinstance(outcome, EditFailure):
                write_traceback(out, outcome.error, outcome.id)
                yield Item(outcome.id, failure=outcome.reason)
            else:
                remove_leftovers(out / outcome.id)
                outcome.save(out / outcome.id)
                yield Item(outcome.id, outcome.share)


def is_finished(record: Path, editor: Editor, request: EditRequest) -> bool:
    """Whether this run.json records the same edit: the same picture, texts, region, settings and weights."""
    try:
        return json.loads(record.read_text())["digest"] == editor.digest(request)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def edit_in_parallel(
    config: EditConfig, requests: Sequence[RequestFile], out: Path, portion: int, workers: int
) -> Iterator[Item]:
    """Like `edit_into`, in several processes, each with its own models; with several GPUs they are spread over them.

    Raises:
        ValueError: something is missing in the configuration, or a worker process died.
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
    running = len(started)
    try:
        while running:
            try:
                item = items.get(timeout=1)
            except queue.Empty:
                dead = [process.exitcode for process in started if process.exitcode]
                if dead:
                    raise ValueError(f"workers: one exited with code {dead[0]}; run the same command again") from None
                continue
            if item is None:
                running -= 1
            elif isinstance(item, str):
                raise ValueError(item)
            else:
                yield item
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _devices(device: str, workers: int) -> list[str]:
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{k % torch.cuda.device_count()}" for k in range(workers)]
    return [device] * workers


def _work(config, requests, out: Path, portion: int, workers: int, items) -> None:
    """One worker process: puts its items into the queue, then None; if it fails, the reason as a string."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    try:
        for item in edit_into(Editor.from_config(config), requests, out, portion):
            items.put(item)
        items.put(None)
    except (ValueError, OSError) as error:
        items.put(one_line(error))


def write_failures(out: Path, items: Sequence[Item]) -> None:
    """Write failures.jsonl with one line for each failed request; the file is empty if none failed."""
    lines = [json.dumps({"id": item.id, "reason": item.failure}) + "\n" for item in items if item.failure]
    write_atomic(out / "failures.jsonl", "".join(lines).encode())


def write_contact_sheet(out: Path, ids: Sequence[str]) -> None:
    """Write contact_sheet.png with region and result of the first finished requests, if there are any."""
    finished = [name for name in ids if (out / name / "run.json").is_file()][:SHEET_ITEMS]
    cells = [_small(out / name / file) for name in finished for file in ("overlay.png", "result.png")]
    columns = 2 * SHEET_COLUMNS
    if cells:
        rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
        write_atomic(out / "contact_sheet.png", png(grid(rows, ["region", "result"] * (len(rows[0]) // 2), CELL)))


def _small(path: Path) -> Image.Image:
    return smaller(open_picture(path, max_pixels=ANY_SIZE), CELL)
