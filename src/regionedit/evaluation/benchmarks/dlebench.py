"""DLEBench: edits of small objects, 1 to 10 % of the picture's area, each with a reference picture."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import yaml

from regionedit.evaluation.benchmarks import base
from regionedit.evaluation.benchmarks.layout import require_layout
from regionedit.evaluation.benchmarks.pictures import open_rgb
from regionedit.list_files import list_lines
from regionedit.records import Captions, EditCase, EditRequest

ROWS = 1889
INDEX, NAMES = "data.jsonl", "fields.yaml"
SOURCES, REFERENCES = "Source_Images/", "Reference_Images/"
KNOWN = {name: name for name in ("image", "reference_image", "edit_operation", "prompt_clean")}
NEEDED = ("image", "reference_image", "edit_operation", "instruction")
NAMED = {"instruction", "target_caption"}  # in fields.yaml


class DleBench(base.Benchmark):
    """`SPUH/DLEBench` (arXiv 2602.23622): a folder with data.jsonl, Source_Images/ and Reference_Images/.

    We know four of data.jsonl's fields: image, reference_image, edit_operation and prompt_clean (the source caption).
    A file fields.yaml beside it names the others: `instruction: FIELD` and, if there is one, `target_caption: FIELD`.
    Captions are only given with a target caption. A row that cannot be a case is left out and counted by its reason.
    A case's id is the name of its reference picture; a repeated one gets _2.
    """

    metrics = (*base.TO_TARGET, *base.CHANGED_REGIONS, "outside_change", "clip_instruction")

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        self.folder = require_layout(folder, [INDEX, SOURCES, REFERENCES], "the files of SPUH/DLEBench")
        index = self.folder / INDEX
        lines = enumerate(list_lines(index, f"data: {index}"), 1)
        rows = [_row(line, f"{index}, line {number}") for number, line in lines if line.strip()]
        fields = _fields(self.folder, list(dict.fromkeys(name for row in rows for name in row)))
        texts = [{key: _text(row.get(name)) for key, name in fields.items()} for row in rows]
        names = base.case_ids([Path(text["reference_image"]).stem for text in texts])
        found = [self._flaw(n, texts, fields) for n in range(len(texts))]
        flaws = Counter(flaw for flaw in found if flaw)
        usable = {name: text for name, text, flaw in zip(names, texts, found, strict=True) if not flaw}
        reasons = ", ".join(f"{flaw}: {count}" for flaw, count in flaws.items())
        if not usable:
            raise ValueError(f"data: {index} has no usable row; {reasons}")
        listed = base.kept_ids(list(usable), ids)
        kept = [name for name in usable if name in listed]
        self.texts, self.kept = usable, kept[: limit or None]
        self.counts = {"rows": len(rows), "kept": len(kept), **flaws}
        self.protocol = base.resized_to("target") | {
            "captions": fields.get("target_caption", "none"),
            "instruction": fields["instruction"],
            "judge": "none: the paper's rubric is unpublished, so these numbers are not comparable with its scores",
        }
        if len(usable) != ROWS:
            base.warn_of_size(folder, f"{len(usable):,} usable rows ({reasons or 'no other'})", f"DLEBench {ROWS:,}")

    def _flaw(self, number: int, texts: list[dict[str, str]], fields: dict[str, str]) -> str | None:
        """Why this row cannot be a case, or None."""
        text = texts[number]
        if empty := [key for key in NEEDED if not text[key]]:
            return f"no {fields[empty[0]]}"
        if not (self.folder / SOURCES / text["image"]).is_file():
            return "source picture missing"
        if not (self.folder / REFERENCES / text["reference_image"]).is_file():
            return "reference picture missing"
        return "same as an earlier row" if texts.index(text) < number else None

    def _case(self, name: str) -> EditCase:
        text = self.texts[name]
        target = text.get("target_caption")
        captions = Captions(text["prompt_clean"], target) if target else None
        source, reference = (
            open_rgb(self.folder / path, path)
            for path in (SOURCES + text["image"], REFERENCES + text["reference_image"])
        )
        request = EditRequest(source, text["instruction"], captions=captions, id=name)
        return EditCase(name, request, text["edit_operation"].lower(), truth_image=reference)


def _row(line: str, where: str) -> dict:
    try:
        return {**json.loads(line)}
    except (ValueError, TypeError):
        raise ValueError(f"data: {where}: not a JSON object; download the file again") from None


def _fields(folder: Path, present: list[str]) -> dict[str, str]:
    """What a text is -> the field that holds it, after checking that data.jsonl has it."""
    there, path = f"{INDEX} has the fields {', '.join(present) or 'none'}", folder / NAMES
    try:
        named = yaml.safe_load(path.read_text()) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        named = None
    if not isinstance(named, dict) or not named.get("instruction") or set(named) - NAMED:
        wanted = "`instruction: FIELD` and, if there is one, `target_caption: FIELD`, nothing else"
        raise ValueError(f"data: {path} must say which field is the instruction: write {wanted}; {there}")
    fields = KNOWN | named
    if lacking := [name for name in fields.values() if name not in present]:
        raise ValueError(f"data: {folder} has no field {lacking[0]!r} (named in {NAMES} or by the data card); {there}")
    return fields


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
