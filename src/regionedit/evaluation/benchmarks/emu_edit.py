"""The Emu Edit test set: 3,589 pictures with instructions and captions, seven tasks, no true edits."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from regionedit.evaluation.benchmarks.base import Benchmark, kept_ids, require_unique, resized_to
from regionedit.evaluation.benchmarks.pictures import open_rgb
from regionedit.evaluation.benchmarks.splits import Split, choose_split, described, read_splits
from regionedit.records import Captions, EditCase, EditRequest

HUB_NAME = "facebook/emu_edit_test_set"
ROWS = 3589
KEPT = 2834  # rows of the one published list, assets/emu_test_data.json of github.com/Huiimin5/NEP
PLACEHOLDERS = ("a train station in city",)
TEXTS = ("idx", "instruction", "task", "input_caption", "output_caption")


class EmuEdit(Benchmark):
    """`facebook/emu_edit_test_set`: a folder of its parquet files, or its hub name, best with `@revision`.

    The two repositories on the hub use opposite split names (the 3,589 rows are `test` in this one and `validation` in
    `emu_edit_test_set_generations`), so the split is chosen by its number of rows. Rows whose captions are identical,
    empty or a placeholder are left out, unless `ids` lists the `idx` of the cases to keep.
    """

    metrics = (
        "clip_direction",
        "clip_text",
        "l1_source",
        "clip_image_source",
        "dino_source",
        "clip_direction_raw",
        "l2_source",
        "dinov2_source",
        "clip_instruction",
        "clip_instruction_rank",
        "pick_score",
        "outside_change",
    )
    filtered = True  # leave out rows with a caption_flaw

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        splits = read_splits(folder, HUB_NAME)
        self.split = _test_split(splits)
        self.texts = self.split.texts(TEXTS)
        names = [str(row["idx"]) for row in self.texts]
        require_unique(names, f"split {self.split.name!r} of {folder}")
        listed = kept_ids(names, ids)
        left_out: Counter[str] = Counter()
        self.kept: list[int] = []
        for number, (name, row) in enumerate(zip(names, self.texts, strict=True)):
            reason = None if (row["instruction"] or "").strip() else "no instruction"
            if reason is None and ids is not None:
                reason = None if name in listed else "not in the list of ids"
            elif reason is None and self.filtered:
                reason = caption_flaw(row["input_caption"], row["output_caption"])
            if reason is None:
                self.kept.append(number)
            else:
                left_out[reason] += 1
        self.counts = {"rows": len(names), "kept": len(self.kept), **left_out}
        if not self.kept:
            raise ValueError(f"data: no row of {folder} is left: {_listed(self.counts)}")
        if self.filtered and ids is None and len(names) == ROWS and len(self.kept) != KEPT:
            warnings.warn(
                f"the caption filter kept {len(self.kept):,} of {ROWS:,} rows where the published list has {KEPT:,} "
                f"({ROWS - KEPT} left out): {_listed(self.counts)}; give that list as ids for its exact cases",
                stacklevel=2,
            )
        self.kept = self.kept[: limit or None]
        rule = "identical (strip, lower), empty and placeholder captions left out" if self.filtered else "none"
        self.protocol = resized_to("source") | {
            "split": f"{ROWS:,} rows" if len(names) == ROWS else f"{self.split.name}, {len(names):,} rows",
            "caption_filter": rule if ids is None else "a list of ids",
            "clip_direction": "differences of normalised embeddings; clip_direction_raw: of raw ones",
        }

    def __iter__(self) -> Iterator[EditCase]:
        for number, row in self.split.rows(["image"], self.kept):
            text = self.texts[number]
            name = str(text["idx"])
            image = open_rgb(*self.split.stored(row["image"], f"idx {name} of split {self.split.name!r}"))
            captions = Captions(text["input_caption"] or "", text["output_caption"] or "")
            request = EditRequest(image, text["instruction"].strip(), captions=captions, id=name)
            yield EditCase(name, request, text["task"])


class EmuEditUnfiltered(EmuEdit):
    """The same test set with every row; a row whose captions do not differ has no CLIP direction."""

    filtered = False


def caption_flaw(source: str | None, target: str | None) -> str | None:
    """Why a pair of captions does not describe the edit, or None."""
    both = [(caption or "").strip().lower() for caption in (source, target)]
    if not all(both):
        return "empty caption"
    if any(caption.rstrip(".") in PLACEHOLDERS for caption in both):
        return "placeholder caption"
    return "identical captions" if both[0] == both[1] else None


def _test_split(splits: Sequence[Split]) -> Split:
    """The split with 3,589 rows; without one the split whose rows say `test`, or the only split, with a warning."""
    if any(len(split) == ROWS for split in splits):
        return choose_split(splits, ROWS)
    named = [s for s in splits if {row.get("split") for row in s.texts((), optional=("split",))} == {"test"}]
    chosen = named[0] if len(named) == 1 else choose_split(splits, ROWS)
    warnings.warn(
        f"no split has the {ROWS:,} rows of the Emu Edit test set; {chosen.name!r} with {len(chosen):,} is taken, of: "
        f"{described(splits)}. Its numbers are not comparable with published ones",
        stacklevel=3,
    )
    return chosen


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
