"""A user's own pictures and instructions; true masks and target pictures are optional."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from regionedit.evaluation.benchmarks.base import OF_TRUE_MASKS, kept_ids, require_unique
from regionedit.evaluation.benchmarks.layout import found_in, require_finished
from regionedit.evaluation.benchmarks.pictures import BRIGHT, MaskedBenchmark, bright
from regionedit.images import MAX_PIXELS, open_picture
from regionedit.list_files import list_lines
from regionedit.mask_files import open_mask
from regionedit.records import EditCase
from regionedit.request_files import RequestFile, named, parse_request


@dataclass(frozen=True)
class Line:
    """One line of the JSONL: the request, and the truth.

    Args:
        request: has no mask, because the editor would take it as a drawn region.
        mask, target: files of the true region and the true edit, or None.
        operation: the user's own name for the kind of edit.
    """

    request: RequestFile
    mask: Path | None
    target: Path | None
    operation: str


class Folder(MaskedBenchmark):
    """A JSONL with one case in each line; paths are relative to the file.

    A line has the fields of infer.py's requests (`request_files.read_requests`: image, instruction or instructions with
    text, strength and keyword, source_caption, target_caption, seed, box, id), and `target` (the true edit) and
    `operation`. Its `mask` is the true region, white on black; it is only used for scoring and never given to the
    editor. A metric has no value for a line that lacks the truth or the captions it needs.
    """

    metrics = (
        "clip_direction",
        "clip_text",
        "l1_source",
        "clip_image_source",
        "dino_source",
        "dinov2_source",
        "clip_instruction",
        "pick_score",
        "l1",
        "l2",
        "clip_image",
        "dino",
        "change_iou_focus",
        *OF_TRUE_MASKS,
    )
    protocol = {
        "caption_filter": "none",
        "reference": "source picture for the metrics called so, else the target picture",
        "truth_mask": BRIGHT,
        "resize": "an edited picture of another size is resized to its reference's, bicubic",
    }

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        super().__init__(folder, limit, ids)
        index = _index(Path(folder))
        lines = _lines(index)
        names = [line.request.id for line in lines]
        require_unique(names, index)
        listed = kept_ids(names, ids)
        kept = [line for line in lines if line.request.id in listed]
        self.kept = kept[: limit or None]
        self._counts = {
            "cases": len(lines),
            "kept": len(kept),
            "with target caption": sum(bool(line.request.captions and line.request.captions.target) for line in lines),
            "with target picture": sum(line.target is not None for line in lines),
            "with mask": sum(line.mask is not None for line in lines),
        }

    def _case(self, line: Line) -> EditCase:
        request, reading = line.request.open(MAX_PIXELS), line.request.reading
        return EditCase(
            id=request.id,
            request=request,
            operation=line.operation,
            truth_mask=line.mask
            and self._mask(request.id, lambda: bright(open_mask(line.mask, reading), request.image.size)),
            truth_image=open_picture(line.target) if line.target else None,
        )


def _index(folder: Path) -> Path:
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise ValueError(f"data: {folder} does not exist; expected a JSONL, or a folder with one")
    require_finished(folder)
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        there = ", ".join(path.name for path in files) or found_in(folder)
        raise ValueError(f"data: {folder} has {len(files)} JSONL files where one is needed; found: {there}")
    return files[0]


def _lines(index: Path) -> list[Line]:
    lines = []
    for number, text in enumerate(list_lines(index, f"data: {index}"), 1):
        if not text.strip():
            continue
        try:
            lines.append(_line(text, index.parent))
        except ValueError as error:
            raise ValueError(f"data: {index}, line {number}: {error}") from None
    if not lines:
        raise ValueError(f"data: {index} holds no case")
    requests = named([line.request for line in lines])
    return [replace(line, request=request) for line, request in zip(lines, requests, strict=True)]


def _line(text: str, folder: Path) -> Line:
    row = json.loads(text)
    truth = {name: row.pop(name) for name in ("target", "operation") if isinstance(row, dict) and name in row}
    for name, value in truth.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name}: {value!r} is empty or not a string; give a text")
    target = folder / truth["target"] if "target" in truth else None
    if target is not None and not target.is_file():
        raise ValueError(f"target: {target}: no such file")
    request = parse_request(json.dumps(row), folder)
    return Line(replace(request, mask=None), request.mask, target, truth.get("operation", "edit"))
