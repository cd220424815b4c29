"""The microworld's test cases: rendered scenes with known true edits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from regionedit.evaluation.benchmarks.base import LANDED, Benchmark, kept_ids
from regionedit.microworld.edits import Edit
from regionedit.microworld.truth import object_map
from regionedit.records import Captions, EditCase, EditRequest


class Microworld(Benchmark):
    """Rendered scenes with known true edits; `data_prep/microworld/pack.py --split test` makes the folder.

    The folder holds `cases.jsonl` (one case a line), `pictures/{id}.png`, `truth/{id}.png` (the true edit) and
    `masks/{id}.png` (8-bit coverage of the true region).
    """

    metrics = (
        "region_iou",
        "region_precision",
        "region_recall",
        "region_iou_best",
        "region_iou_pixel",
        "mask_iou",
        "region_area",
        "pointing",
        "pointing_chance",
        "add_inside",
        "add_size_ratio",
        "add_present",
        "background_iou",
        "edit_success",
        "objects_kept",
        "outside_change",
        "outside_truth_change",
        *LANDED,
        "l1",
        "clip_image",
        "clip_text",
        "clip_direction",
        "dino",
    )
    headline = ("replace", "recolour", "remove")
    protocol = {
        "truth_cell": "coverage > 0.25",
        "clip_image_reference": "truly edited picture",
        "clip_direction": "differences of normalised embeddings",
        "outside": "neither predicted nor true region",
        "resize": "a picture of another size is resized to the source's, bicubic",
    }

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        self.folder = Path(folder)
        index = self.folder / "cases.jsonl"
        if not index.is_file():
            raise ValueError(f"data: {index} does not exist; make it with data_prep/microworld/pack.py --split test")
        self.kept = []
        for number, line in enumerate(index.read_text().splitlines(), 1):
            try:
                self.kept.append(json.loads(line) | {"line": number})
            except (TypeError, ValueError) as error:
                raise ValueError(f"data: {index} line {number}: {error!r}") from None
        listed = kept_ids([row.get("id") for row in self.kept], ids)
        self.kept = [row for row in self.kept if row.get("id") in listed][: limit or None]
        if not self.kept:
            raise ValueError(f"data: {index} holds no case")
        self.counts = {"cases": len(self.kept)}

    def __iter__(self) -> Iterator[EditCase]:
        for row in self.kept:
            try:
                yield self._case(row)
            except (KeyError, TypeError, OSError) as error:
                raise ValueError(f"data: {self.folder / 'cases.jsonl'} line {row['line']}: {error!r}") from None

    def _case(self, row: dict) -> EditCase:
        name = f"{row['id']}.png"
        request = EditRequest(
            image=Image.open(self.folder / "pictures" / name).convert("RGB"),
            instructions=row["instruction"],
            captions=Captions(row["source_caption"], row["target_caption"]),
            id=row["id"],
        )
        edit = Edit.from_json({key: row[key] for key in Edit.__dataclass_fields__})
        named = object_map(edit) == 1
        return EditCase(
            id=row["id"],
            request=request,
            operation=row["operation"],
            groups=row["groups"],
            truth_mask=Image.open(self.folder / "masks" / name).convert("L"),
            object_mask=Image.fromarray(named.astype("uint8") * 255) if named.any() else None,
            truth_image=Image.open(self.folder / "truth" / name).convert("RGB"),
            truth=edit,
        )
