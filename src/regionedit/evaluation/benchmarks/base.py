"""The interface of a benchmark: an iterator of `EditCase`s read from disk, with its metrics and its protocol.

A benchmark never drops a case silently. It counts the cases that its protocol leaves out; an unreadable case raises; a
case that cannot be edited becomes a row with its reason.
"""

from __future__ import annotations

import json
import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from regionedit.records import EditCase

TO_TARGET = ("l1", "l2", "clip_image", "dino", "clip_text", "dinov2")
REGIONS = ("region_iou_pixel", "region_precision_pixel", "region_recall_pixel")
BACKGROUND = ("background_psnr", "background_ssim", "background_lpips", "background_mse")
OUTSIDE = ("outside_change", "outside_truth_change")
CHANGED_REGIONS = ("region_iou_changed", "region_precision_changed", "region_recall_changed")
# Where the edit landed, for any editor: the change map of source and edited picture against the true mask.
LANDED = ("landed_iou", "landed_outside", "landed_position", "landed_size")
# From the answers of a vision-language model; without any, they have no value.
VIESCORE = ("viescore", "viescore_semantics", "viescore_quality", "viescore_or_zero", "viescore_unanswered")
# Metrics for benchmarks with true masks; those named `changed` also need target pictures.
OF_TRUE_MASKS = (*REGIONS, *CHANGED_REGIONS, "change_iou", *LANDED, *BACKGROUND, *OUTSIDE)


def resized_to(reference: str) -> dict[str, str]:
    """Protocol entries of a benchmark without a caption filter; `reference` is `source` or `target`."""
    return {
        "reference": f"{reference} picture",
        "caption_filter": "none",
        "resize": f"an edited picture of another size is resized to the {reference}'s, bicubic",
    }


class Benchmark(ABC):
    """Cases in a fixed order. `kept` holds their rows; a picture is opened only when the iteration reaches its case.

    A case that continues another is a later turn, and cases are ordered by turn: all first turns, then all second ones.

    Args:
        folder: the data; each benchmark says what it expects there.
        limit: keep only the first cases, 0 for all.
        ids: a file with the ids to keep, a JSON list or one id a line; None for all.

    Raises:
        ValueError: something is missing or cannot be read; the message lists what was expected and what is there.
    """

    metrics: ClassVar[tuple[str, ...]]
    # Operations whose region the picture determines: metrics marked `headline` are averaged over them; () for all.
    headline: ClassVar[tuple[str, ...]] = ()
    protocol: ClassVar[dict[str, str]]
    rubric: ClassVar[str | None] = None  # key of RUBRICS: how a vision-language model judges the edits
    counts: dict[str, int]
    kept: Sequence

    @abstractmethod
    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None): ...

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[EditCase]:
        return map(self._case, self.kept)

    def _case(self, row) -> EditCase:
        raise NotImplementedError


def read_ids(path: str | Path) -> list[str]:
    """Read the ids of a file: a JSON list of ids or of objects with `idx` or `id`, or one id a line.

    Raises:
        ValueError: no such file, or no id in it.
    """
    try:
        text = Path(path).read_text().strip()
        rows = json.loads(text) if text.startswith("[") else text.split("\n")
        names = [str(row.get("idx", row.get("id", ""))) if isinstance(row, dict) else str(row) for row in rows]
    except OSError as error:
        raise ValueError(f"ids: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"ids: {path} is neither a JSON list nor one id a line: {error}") from None
    ids = [i.strip() for i in names if i.strip()]
    if not ids:
        raise ValueError(f"ids: {path} names no case")
    return ids


def kept_ids(known: Sequence[str], path: str | Path | None) -> set[str]:
    """The known ids that the file lists, or all without a file; warns of listed ids that the data lack.

    Raises:
        ValueError: the file cannot be read, or lists none of the known ids.
    """
    present = set(known)
    if path is None:
        return present
    wanted = dict.fromkeys(read_ids(path))
    lacking = [i for i in wanted if i not in present]
    if len(lacking) == len(wanted):
        raise ValueError(f"ids: {path} lists none of the {len(known)} cases; ids look like {', '.join(known[:3])}")
    if lacking:
        warnings.warn(f"ids: {len(lacking)} of {path} are not in the data: {', '.join(lacking[:5])}", stacklevel=2)
    return set(wanted) - set(lacking)


def warn_of_size(folder: str | Path, found: str, whole: str) -> None:
    """Warn that the data are not the whole set."""
    numbers = "the numbers are not comparable with those of the whole set"
    warnings.warn(f"data: {folder} has {found}, {whole}; {numbers}", stacklevel=3)


def require_unique(ids: Sequence[str], where: str | Path) -> None:
    """Raises ValueError if an id occurs twice, because results are named by it."""
    if twice := next((name for name, count in Counter(ids).items() if count > 1), None):
        raise ValueError(f"data: {where}: id {twice!r} comes twice")


def case_ids(names: Sequence[str]) -> list[str]:
    """Ids that can name files, one for each name in order; a repeated name gets _2, _3, ..."""
    taken: set[str] = set()
    made = []
    for name in (re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "case" for name in names):
        free, count = name, 1
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        made.append(free)
    return made
