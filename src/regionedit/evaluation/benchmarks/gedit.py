"""GEdit-Bench: 606 real requests in English and Chinese; its own scores come from a vision-language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from regionedit.evaluation.benchmarks.base import VIESCORE, Benchmark, case_ids, kept_ids, resized_to, warn_of_size
from regionedit.evaluation.benchmarks.pictures import open_rgb
from regionedit.evaluation.benchmarks.splits import choose_split, read_splits
from regionedit.records import EditCase, EditRequest

HUB_NAME = "stepfun-ai/GEdit-Bench"
ROWS = 1212
CASES = 606  # in each language
TEXTS = ("task_type", "key", "instruction", "instruction_language")


class GEdit(Benchmark):
    """`stepfun-ai/GEdit-Bench` (arXiv 2504.17761): a folder of its arrow files, or its hub name. English rows.

    Its own scores (VIEScore: semantic consistency, perceptual quality) come from the model in `vlm_judge`. The other
    metrics need neither truth nor captions. The source picture is `input_image`, which that model is shown too. A
    case's id is its key, as in the picture names of the authors' scripts.
    """

    metrics = (
        "l1_source",
        "clip_image_source",
        "dino_source",
        "dinov2_source",
        "clip_instruction",
        "clip_instruction_rank",
        "outside_change",
        *VIESCORE,
    )
    rubric = "viescore"
    language = "en"

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        self.split = choose_split(read_splits(folder, HUB_NAME), ROWS)
        self.texts = self.split.texts(TEXTS)
        in_language = [i for i, row in enumerate(self.texts) if row["instruction_language"] == self.language]
        usable = [i for i in in_language if (self.texts[i]["instruction"] or "").strip()]
        if not usable:
            there = sorted({str(row["instruction_language"]) for row in self.texts})
            raise ValueError(f"data: {folder} has no row in {self.language!r}; there are: {', '.join(there)}")
        self.names = dict(zip(usable, case_ids([str(self.texts[i]["key"]) for i in usable]), strict=True))
        listed = kept_ids(list(self.names.values()), ids)
        kept = [i for i in usable if self.names[i] in listed]
        self.kept = kept[: limit or None]
        self.counts = {
            "rows": len(self.texts),
            "kept": len(kept),
            "in another language": len(self.texts) - len(in_language),
            "no instruction": len(in_language) - len(usable),
        }
        if len(usable) != CASES:
            warn_of_size(folder, f"{len(usable):,} rows in {self.language!r}", f"GEdit-Bench {CASES:,}")
        self.protocol = resized_to("source") | {"language": self.language}

    def __iter__(self) -> Iterator[EditCase]:
        for number, row in self.split.rows(["input_image"], self.kept):
            name, text = self.names[number], self.texts[number]
            image = open_rgb(*self.split.stored(row["input_image"], f"input_image of {name}"))
            yield EditCase(name, EditRequest(image, text["instruction"].strip(), id=name), text["task_type"])


class GEditChinese(GEdit):
    """The same pictures with their Chinese instructions."""

    language = "cn"
