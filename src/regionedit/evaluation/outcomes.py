"""Finished cases: how they are kept, and how the metrics see them. Everything scored is read back from these files.

A folder of finished cases holds `pictures/{id}.png`, and where a region was found `masks/{id}.png` (8 bit, 255 = edit),
`probability/{id}.png` (16 bit, at the picture's size) and `grid/{id}.png` (16 bit, one pixel for each patch: the
source's own map before it was enlarged). `records/{id}.json` says how to repeat the edit; a case that failed has
`failures/{id}.txt` with the reason instead. Several processes may write at once, each its own cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from regionedit.files import write_atomic
from regionedit.images import SUFFIXES, open_picture, png, sixteen_bit
from regionedit.masks import downsample
from regionedit.records import EditCase, EditResult


@dataclass(frozen=True)
class Outcome:
    """A finished case; arrays are float32 in [0, 1].

    Args:
        case: with its truth.
        picture: the edited picture, RGB, of the size that it was saved in; None where there is only a region.
        mask: [H, W], 1 = edit, or None.
        probability: [H, W], the map the mask was made from, or None.
        patches: [side, side], the same before it was enlarged, or None.
        focus: [H, W], where the evaluation's own editor edited this case, for all rows the same; None if nowhere known.
        failed: why there is nothing to score, or None.
        note: what is unusual about the picture, or None: metrics resize one of another size as their protocols do.
    """

    case: EditCase
    picture: Image.Image | None = None
    mask: np.ndarray | None = None
    probability: np.ndarray | None = None
    patches: np.ndarray | None = None
    focus: np.ndarray | None = None
    failed: str | None = None
    note: str | None = None

    def grid(self, side: int) -> np.ndarray | None:
        """P on a [side, side] grid: the source's own map where it has this size, else the mean over each cell."""
        if self.patches is not None and self.patches.shape == (side, side):
            return self.patches
        return None if self.probability is None else cell_means(self.probability, side)

    @cached_property
    def truth(self) -> np.ndarray | None:
        """[H, W] coverage of the true region."""
        mask = self.case.truth_mask
        return None if mask is None else np.asarray(mask.convert("L"), np.float32) / 255


class CaseFolder:
    """Where the finished cases of one editor are.

    Args:
        folder: as the module says.
        pictures: where the pictures are instead, named by case id, in any usual format.
        focus: the folder of the evaluation's own editor, if this is another one's.
    """

    def __init__(self, folder: str | Path, pictures: str | Path | None = None, focus: str | Path | None = None):
        self.folder = Path(folder)
        self.focus = Path(focus) if focus is not None else self.folder
        self.pictures = Path(pictures) if pictures is not None else self.folder / "pictures"

    def outcomes(self, cases: Iterable[EditCase]) -> Iterator[Outcome]:
        """Read the scored cases back; what is missing or unreadable becomes the reason of its case."""
        for case in cases:
            if not case.scored:
                continue
            found = Outcome(
                case,
                mask=_read(self._path("masks", case.id)),
                probability=_read(self._path("probability", case.id)),
                patches=_read(self._path("grid", case.id)),
                focus=_read(self.focus / "masks" / f"{case.id}.png"),
            )
            reason = self.failure(case.id)
            yield self._with_picture(found) if reason is None else replace(found, failed=reason)

    def _with_picture(self, found: Outcome) -> Outcome:
        case = found.case
        try:
            picture = self.picture(case.id)
        except ValueError as error:
            return replace(found, failed=str(error))
        if picture is None:
            return replace(found, failed=f"no picture {case.id} in {self.pictures}")
        size = case.request.image.size
        if picture.size == size:
            return replace(found, picture=picture)
        note = f"{picture.width}x{picture.height}, the source has {size[0]}x{size[1]}"
        return replace(found, picture=picture, note=note)

    def picture(self, case_id: str) -> Image.Image | None:
        """The edited picture of a case, None where there is none.

        Raises:
            ValueError: it cannot be read.
        """
        path = next((p for s in SUFFIXES if (p := self.pictures / f"{case_id}{s}").is_file()), None)
        return None if path is None else open_picture(path)

    def failure(self, case_id: str) -> str | None:
        """Why a case failed, None where it did not."""
        path = self._failure(case_id)
        return path.read_text() if path.is_file() else None

    def stamp(self, case_id: str) -> str:
        """Changes whenever a file that is scored changes."""
        names = [p for s in SUFFIXES if (p := self.pictures / f"{case_id}{s}").is_file()]
        names += [self._path(kind, case_id) for kind in ("masks", "probability", "grid")]
        names += [self.focus / "masks" / f"{case_id}.png"]
        files = [path.stat() for path in (*names, self._failure(case_id)) if path.is_file()]
        return " ".join(f"{file.st_mtime_ns}:{file.st_size}" for file in files)

    def grid_side(self) -> int:
        """Side of the grid on which regions were found, 0 where none was saved."""
        path = next((self.folder / "grid").glob("*.png"), None)
        return Image.open(path).width if path else 0

    def record(self, case_id: str) -> dict:
        """How the case was made, empty where it is not finished."""
        path = self.folder / "records" / f"{case_id}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def seconds(self, case_id: str) -> float:
        """Time of an edit, loading not included; NaN where nothing tells."""
        times = self.record(case_id).get("seconds")
        return sum(times.values()) if times else float("nan")

    def write_region(self, result: EditResult) -> None:
        """Save where a case was edited."""
        write_atomic(self._path("masks", result.id), png(result.mask))
        write_atomic(self._path("probability", result.id), png(sixteen_bit(result.probability)))
        if result.patches is not None:
            write_atomic(self._path("grid", result.id), png(sixteen_bit(result.patches)))

    def write_picture(self, result: EditResult) -> None:
        """Save an edited picture; its record comes last and tells that all is there."""
        write_atomic(self.pictures / f"{result.id}.png", png(result.image))
        write_atomic(self.folder / "records" / f"{result.id}.json", json.dumps(result.record, indent=1).encode())
        self._failure(result.id).unlink(missing_ok=True)

    def write_failure(self, case_id: str, reason: str) -> None:
        """Save why a case failed; a picture of an earlier run does not stand for it."""
        (self.folder / "records" / f"{case_id}.json").unlink(missing_ok=True)
        (self.pictures / f"{case_id}.png").unlink(missing_ok=True)
        write_atomic(self._failure(case_id), reason.encode())

    def _failure(self, case_id: str) -> Path:
        return self.folder / "failures" / f"{case_id}.txt"

    def _path(self, kind: str, case_id: str) -> Path:
        return self.folder / kind / f"{case_id}.png"


def _read(path: Path) -> np.ndarray | None:
    """A saved map as [H, W] in [0, 1], or None where there is none."""
    if not path.is_file():
        return None
    values = np.asarray(Image.open(path))
    return values.astype(np.float32) / (255 if values.dtype == np.uint8 else 65535)


def cell_means(values: np.ndarray, side: int) -> np.ndarray:
    """Mean of [H, W] values over each cell of a [side, side] grid, for any picture size."""
    return downsample(torch.tensor(values)[None, None], side)[0].view(side, side).numpy()
