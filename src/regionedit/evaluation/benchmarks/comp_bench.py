"""CompBench: edits of video frames with several objects, with target pictures and the mask of every edited object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from regionedit.evaluation.benchmarks.base import OF_TRUE_MASKS, TO_TARGET, case_ids, kept_ids, resized_to, warn_of_size
from regionedit.evaluation.benchmarks.pictures import BRIGHT, MaskedBenchmark, bright, open_rgb, open_stored
from regionedit.evaluation.benchmarks.splits import choose_split, read_splits
from regionedit.records import Captions, EditCase, EditRequest

HUB_NAME = "BohanJia/CompBench"
SPLITS = {"train": 2905, "multi_turn": 576}  # name -> rows
TEXTS = ("task", "image_path", "instruction", "caption")
PICTURES = ("input_image", "edited_image", "mask")
SUITES = {
    "local": ("add", "remove", "replace"),
    "multi_object": ("multi_object_add", "multi_object_remove"),
    "implicit": ("implicit_reasoning",),
    "scene": ("action", "location", "view"),
    "multi_turn": ("multi_turn_add", "multi_turn_remove"),
}
SUITE = {task: suite for suite, tasks in SUITES.items() for task in tasks}
PUBLISHED = (
    "comp_bench_text",
    "comp_bench_image",
    "comp_bench_psnr",
    "comp_bench_ssim",
    "comp_bench_lpips",
)


class CompBench(MaskedBenchmark):
    """`BohanJia/CompBench` (arXiv 2505.12200): a folder of its parquet files, or its hub name, best with `@revision`.

    The frames are MOSE's, for non-commercial research only. A caption describes what the mask covers, not the whole
    picture; two objects have two captions, separated by a vertical bar. A case's id is made of task and image_path,
    because tasks share paths. The tasks action, location and view have no mask. Each turn of a multi-turn row starts
    from its stored picture.
    """

    split_name: ClassVar[str] = "train"
    suites: ClassVar[tuple[str, ...]] = ("local", "multi_object", "implicit", "scene")
    turn: ClassVar[int | None] = None
    metrics = (*PUBLISHED, *TO_TARGET, *OF_TRUE_MASKS)
    protocol = resized_to("source") | {
        "captions": "the caption, which describes the edited objects",
        "truth_mask": BRIGHT,
        "turns": "each from its stored picture",
    }

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        super().__init__(folder, limit, ids)
        splits, rows = read_splits(folder, HUB_NAME), SPLITS[self.split_name]
        named = [split for split in splits if split.name == self.split_name]
        self.split = named[0] if len(named) == 1 else choose_split(splits, rows)
        self.texts = self.split.texts(TEXTS)
        self.names = case_ids([f"{row['task']}/{Path(row['image_path']).with_suffix('')}" for row in self.texts])
        belong = [i for i, row in enumerate(self.texts) if self._belongs(row)]
        if not belong:
            found = ", ".join(sorted({row["task"] for row in self.texts}))
            wanted = ", ".join(task for suite in self.suites for task in SUITES[suite])
            raise ValueError(f"data: {folder} has no row of {wanted}; its tasks: {found}")
        listed = kept_ids([self.names[i] for i in belong], ids)
        has_instruction = {i: bool((self.texts[i]["instruction"] or "").strip()) for i in belong}
        kept = [i for i in belong if self.names[i] in listed and has_instruction[i]]
        self.kept = kept[: limit or None]
        self._counts = {
            "rows": len(self.texts),
            "kept": len(kept),
            "of other tasks or turns": len(self.texts) - len(belong),
            "no instruction": list(has_instruction.values()).count(False),
        }
        if len(self.texts) != rows:
            warn_of_size(folder, f"{len(self.texts):,} rows", f"CompBench's split {self.split_name} {rows:,}")

    def __iter__(self) -> Iterator[EditCase]:
        for number, row in self.split.rows(PICTURES, self.kept):
            yield self._row_case(self.names[number], self.texts[number], row)

    def _belongs(self, row: dict) -> bool:
        in_turn = self.turn is None or row["image_path"].startswith(f"turn{self.turn}_")
        return SUITE.get(row["task"]) in self.suites and in_turn

    def _row_case(self, name: str, text: dict, row: dict) -> EditCase:
        def stored(column: str) -> tuple[Path | bytes, str]:
            return self.split.stored(row[column], f"{column} of {name}")

        def mask():
            if row["mask"] is None:
                raise ValueError("its row has none")
            return bright(open_stored(*stored("mask")), image.size)

        image = open_rgb(*stored("input_image"))
        caption = (text["caption"] or "").strip()
        return EditCase(
            id=name,
            request=EditRequest(
                image, text["instruction"].strip(), captions=Captions("", caption) if caption else None, id=name
            ),
            operation=text["task"],
            groups={"suite": SUITE[text["task"]]},
            truth_mask=self._mask(name, mask),
            truth_image=open_rgb(*stored("edited_image")) if row["edited_image"] else None,
        )


class CompBenchLocal(CompBench):
    """CompBench's table of local edits: one object is added, removed or replaced."""

    suites = ("local",)


class CompBenchMultiObject(CompBench):
    """CompBench's table of edits of two objects."""

    suites = ("multi_object",)


class CompBenchImplicit(CompBench):
    """CompBench's table of edits whose instruction names the object only indirectly."""

    suites = ("implicit",)


class CompBenchFirstTurn(CompBench):
    """The first turns of CompBench's split `multi_turn`."""

    split_name, suites, turn = "multi_turn", ("multi_turn",), 1


class CompBenchSecondTurn(CompBench):
    """The second turns of CompBench's split `multi_turn`."""

    split_name, suites, turn = "multi_turn", ("multi_turn",), 2
