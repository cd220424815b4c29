"""Turns uploaded files into the requests of a batch: pictures with one instruction, or a list that names pictures."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from regionedit.images import SUFFIXES
from regionedit.records import EditRequest
from regionedit.request_files import RequestFile, make_instructions, named, read_requests
from regionedit.web.settings import Settings
from regionedit.web.studio import Studio

LISTS = (".csv", ".jsonl")
NUMBERS = ("seed",)
FILES = ("image", "mask")
TAKEN = ".uploads.json"
"""File with name -> path of its upload. Written after all copies are complete, so a partial copy is never reused."""


def gather(studio: Studio, uploads: Sequence[tuple[Path, str]], settings: Settings, folder: Path) -> list[RequestFile]:
    """Copy the uploads into `folder` under their own names and return the requests.

    If they include a CSV or JSONL, its lines are the requests, with the fields of infer.py's `--requests`; they can
    name uploaded pictures only. Otherwise there is one request for each picture, with the instruction.

    Args:
        uploads: (file, original name) of each upload.
        settings: the instruction, the seed and the generator's settings.
        folder: of this batch. Files of earlier batches are deleted; a file of the same upload is not copied again.

    Raises:
        ValueError: too many files, nothing to edit, or a list that cannot be read; the message names the line.
    """
    settings.check(studio.config)
    if len(uploads) > studio.config.max_pictures:
        raise ValueError(f"files: {len(uploads)} given, at most {studio.config.max_pictures} are accepted")
    uploads = [(path, Path(name.replace("\\", "/")).name) for path, name in uploads]
    wanted = {name: str(path) for path, name in uploads}
    known = _emptied(folder, wanted)
    lists, pictures, seen = [], [], set()
    for path, name in uploads:
        if name not in known:
            studio.check_size(path, name)
        suffix = Path(name).suffix.lower()
        if suffix not in (*SUFFIXES, *LISTS):
            raise ValueError(f"file {name!r}: neither a picture nor a list ({', '.join((*SUFFIXES, *LISTS))})")
        if name in seen:
            raise ValueError(f"file {name!r}: uploaded twice; give the files different names")
        seen.add(name)
        if name not in known:
            shutil.copyfile(path, folder / name)
        (lists if suffix in LISTS else pictures).append(folder / name)
    (folder / TAKEN).write_text(json.dumps(wanted))
    if len(lists) > 1:
        raise ValueError(f"files: {len(lists)} lists given; give one CSV or JSONL at a time")
    if lists:
        return _listed(lists[0], folder, studio.config.max_pictures)
    if not pictures:
        raise ValueError("files: choose pictures, optionally with a CSV or JSONL that has an instruction for each")
    instructions = make_instructions(settings.instructions())
    return named([RequestFile(path, instructions, int(settings.seed)) for path in pictures])


def _emptied(folder: Path, wanted: dict[str, str]) -> set[str]:
    """Delete all files in `folder` except those of these uploads (name -> path); return the names that are left."""
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads((folder / TAKEN).read_text()) if (folder / TAKEN).is_file() else {}
    known = {name for name, path in wanted.items() if before.get(name) == path and (folder / name).is_file()}
    for file in folder.iterdir():
        if file.name not in known:
            file.unlink()
    return known


def _listed(path: Path, folder: Path, most: int) -> list[RequestFile]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"file {path.name!r}: not UTF-8 text") from None
    rows = _rows_of_csv(text) if path.suffix.lower() == ".csv" else _rows_of_jsonl(text, path.name)
    if len(rows) > most:
        raise ValueError(f"file {path.name!r}: {len(rows)} requests, at most {most} are accepted")
    for number, row in enumerate(rows, start=1):
        for field in FILES:
            given = row.get(field) if isinstance(row, dict) else None
            # A path could lead out of the folder, and the list must not read other files of the server.
            if given is not None and (not isinstance(given, str) or Path(given).name != given or "\\" in given):
                raise ValueError(
                    f"file {path.name!r}, request {number}: {field}: {given!r} is not the name of an uploaded file"
                )
    written = folder / ".requests.jsonl"
    written.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        return read_requests(written)
    except ValueError as error:
        message = str(error).replace(f"{folder}/", "").replace(str(folder), "").replace(written.name, path.name)
        raise ValueError(message) from None


def _rows_of_csv(text: str) -> list[dict]:
    rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(io.StringIO(text))]
    for number, row in enumerate(rows, start=1):
        for field in NUMBERS:
            if field in row:
                try:
                    row[field] = int(row[field])
                except ValueError:
                    raise ValueError(f"request {number}: {field}: {row[field]!r} is not a whole number") from None
    return rows


def _rows_of_jsonl(text: str, name: str) -> list:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"file {name!r}, line {number}: not JSON: {error.msg}") from None
    return rows


def opened(studio: Studio, request: RequestFile) -> EditRequest:
    """Open picture and mask of a request; they hold their file names but no folder of the server."""
    picture = studio.open(request.image)
    mask = studio.open_mask(request.mask, picture) if request.mask else None
    return request.with_pictures(picture, mask)


def zipped(out: Path, to: Path) -> Path:
    """Write all files of a batch to one ZIP, uncompressed because PNGs are compressed already."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in out.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(out))
    return to
