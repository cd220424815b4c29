"""HumanEdit: 5,751 edits of high-resolution photographs, made and masked by people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from regionedit.evaluation.benchmarks.base import OF_TRUE_MASKS, TO_TARGET, case_ids, kept_ids, resized_to, warn_of_size
from regionedit.evaluation.benchmarks.pictures import ERASED, MaskedBenchmark, erased, open_rgb, open_stored
from regionedit.evaluation.benchmarks.splits import choose_split, read_splits
from regionedit.records import Captions, EditCase, EditRequest

HUB_NAME = "BryanW/HumanEdit"
ROWS = 5751
TEXTS = (
    "IMAGE_ID",
    "EDITING_TYPE",
    "CORE",
    "EDITING_INSTRUCTION",
    "OUTPUT_DESCRIPTION",
    "INPUT_CAPTION_BY_LLAMA",
    "OUTPUT_CAPTION_BY_LLAMA",
)
PICTURES = ("INPUT_IMG", "MASK_IMG", "OUTPUT_IMG")


class HumanEdit(MaskedBenchmark):
    """`BryanW/HumanEdit` (arXiv 2412.04280): a folder of its parquet files, or its hub name, best with `@revision`.

    The target caption is the description that a person wrote, or LLaMA's if there is none; the source caption is
    LLaMA's. Their authors differ, so no CLIP direction is scored. `core` marks instructions that need no mask. A case's
    id is its IMAGE_ID; a repeated one gets _2.
    """

    metrics = (*TO_TARGET, *OF_TRUE_MASKS, "clip_instruction")
    protocol = resized_to("target") | {
        "captions": "OUTPUT_DESCRIPTION, else OUTPUT_CAPTION_BY_LLAMA",
        "truth_mask": ERASED,
    }

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        super().__init__(folder, limit, ids)
        self.split = choose_split(read_splits(folder, HUB_NAME), ROWS)
        self.texts = self.split.texts(TEXTS)
        self.names = case_ids([str(row["IMAGE_ID"]) for row in self.texts])
        listed = kept_ids(self.names, ids)
        has_instruction = [bool((row["EDITING_INSTRUCTION"] or "").strip()) for row in self.texts]
        kept = [i for i, name in enumerate(self.names) if name in listed and has_instruction[i]]
        self.kept = kept[: limit or None]
        self._counts = {"rows": len(self.texts), "kept": len(kept), "no instruction": has_instruction.count(False)}
        if len(self.texts) != ROWS:
            warn_of_size(folder, f"{len(self.texts):,} rows", f"HumanEdit {ROWS:,}")

    def __iter__(self) -> Iterator[EditCase]:
        for number, row in self.split.rows(PICTURES, self.kept):
            yield self._row_case(self.names[number], self.texts[number], row)

    def _row_case(self, name: str, text: dict, row: dict) -> EditCase:
        def stored(column: str) -> tuple[Path | bytes, str]:
            return self.split.stored(row[column], f"{column} of {name}")

        image = open_rgb(*stored("INPUT_IMG"))
        target = text["OUTPUT_DESCRIPTION"] or text["OUTPUT_CAPTION_BY_LLAMA"]
        captions = Captions(text["INPUT_CAPTION_BY_LLAMA"] or "", target) if target else None
        return EditCase(
            id=name,
            request=EditRequest(image, text["EDITING_INSTRUCTION"].strip(), captions=captions, id=name),
            operation=text["EDITING_TYPE"].lower(),
            groups={"core": "yes" if text["CORE"] else "no"},
            truth_mask=self._mask(name, lambda: erased(open_stored(*stored("MASK_IMG")), image.size)),
            truth_image=open_rgb(*stored("OUTPUT_IMG")),
        )
