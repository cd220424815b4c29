"""ImgEdit-Bench's basic suite: 737 requests of nine types; its own score comes from a vision-language model."""

from __future__ import annotations

import json
from pathlib import Path

from regionedit.evaluation.benchmarks.base import Benchmark, kept_ids, resized_to, warn_of_size
from regionedit.evaluation.benchmarks.layout import require_files, require_layout
from regionedit.evaluation.benchmarks.pictures import open_rgb
from regionedit.evaluation.rubrics import ImgEdit
from regionedit.records import EditCase, EditRequest

INDEX = "basic_edit.json"
CASES = 737


class ImgEditBench(Benchmark):
    """ImgEdit-Bench (arXiv 2505.20275), basic suite.

    The folder holds `basic_edit.json` of github.com/PKU-YuanGroup/ImgEdit, Benchmark/Basic (key -> `id`, `prompt`,
    `edit_type`), and the pictures of Benchmark.tar of the hub's `sysuyy/ImgEdit` at the paths in `id`. A case's id is
    its key, as in the picture names of the authors' scripts.
    """

    metrics = (
        "imgedit",
        "imgedit_or_zero",
        "imgedit_unanswered",
        "l1_source",
        "clip_image_source",
        "dino_source",
        "clip_instruction",
        "outside_change",
    )
    protocol = resized_to("source")
    rubric = "imgedit"

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        self.folder = require_layout(folder, [INDEX], "the basic suite of ImgEdit-Bench")
        try:
            rows = json.loads((self.folder / INDEX).read_text())
            texts = {key: {name: str(row[name]) for name in ("id", "prompt", "edit_type")} for key, row in rows.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"data: {self.folder / INDEX}: not ImgEdit-Bench's list of cases: {error!r}") from None
        if odd := next((key for key, row in texts.items() if row["edit_type"] not in ImgEdit.kinds), None):
            raise ValueError(f"data: {self.folder / INDEX}: {odd}: no edit_type {texts[odd]['edit_type']!r}")
        usable = [key for key, row in texts.items() if row["prompt"].strip()]
        listed = kept_ids(usable, ids)
        kept = [key for key in usable if key in listed]
        self.texts, self.kept = texts, kept[: limit or None]
        self.counts = {"rows": len(texts), "kept": len(kept), "no instruction": len(texts) - len(usable)}
        require_files([self.folder / texts[key]["id"] for key in self.kept], "pictures")
        if len(usable) != CASES:
            warn_of_size(folder, f"{len(usable)} requests", f"ImgEdit-Bench {CASES}")

    def _case(self, key: str) -> EditCase:
        row = self.texts[key]
        image = open_rgb(self.folder / row["id"], row["id"])
        return EditCase(key, EditRequest(image, row["prompt"].strip(), id=key), row["edit_type"])
