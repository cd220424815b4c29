"""Finished cases: the files that hold them, and the records that metrics read. All scores come from these files.

A folder of finished cases holds `pictures/{id}.png` and, for edits with a region, `masks/{id}.png` (8 bit, 255 = edit),
`probability/{id}.png` (16 bit, at the picture's size) and `grid/{id}.png` (16 bit, one pixel for each patch: the mask
source's own map before upsampling). `records/{id}.json` holds everything needed to repeat the edit; a failed case has
`failures/{id}.txt` with the reason instead. `answers/{judge}/{id}.json` holds what a vision-language model said about
it. Several processes may write at once, each its own cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from regionedit.evaluation.change_map import change_map
from regionedit.files import write_atomic
from regionedit.images import SUFFIXES, digest, open_picture, png, sixteen_bit
from regionedit.masks import downsample
from regionedit.records import EditCase, EditResult


@dataclass(frozen=True)
class Outcome:
    """A finished case; arrays are float32 in [0, 1].

    Args:
        case: with its truth.
        picture: the edited picture, RGB, at its saved size; None if there is only a region.
        mask: [H, W], 1 = edit, or None.
        probability: [H, W], the map that the mask was made from, or None.
        patches: [side, side], the same map before upsampling, or None.
        answers: what judges said about the picture, by key of the judge; see `judge`.
        focus: [H, W], the mask of the evaluation's own editor for this case, the same in every row; None if unknown.
        failed: why there is nothing to score, or None.
        note: a remark on the picture, or None: its size differs from the source's, and each metric resizes it as its
            protocol says.
    """

    case: EditCase
    picture: Image.Image | None = None
    mask: np.ndarray | None = None
    probability: np.ndarray | None = None
    patches: np.ndarray | None = None
    focus: np.ndarray | None = None
    answers: Mapping[str, dict] = field(default_factory=dict)
    failed: str | None = None
    note: str | None = None

    def grid(self, side: int) -> np.ndarray | None:
        """P on a [side, side] grid: the mask source's own map if it has this size, else the mean over each cell."""
        if self.patches is not None and self.patches.shape == (side, side):
            return self.patches
        return None if self.probability is None else cell_means(self.probability, side)

    @cached_property
    def truth(self) -> np.ndarray | None:
        """[H, W] coverage of the true region."""
        mask = self.case.truth_mask
        return None if mask is None else np.asarray(mask.convert("L"), np.float32) / 255

    @cached_property
    def shown(self) -> list[str]:
        """Hashes of what a judge is shown: source picture, edited picture, instruction."""
        request = self.case.request
        words = hashlib.sha256(request.instruction.encode()).hexdigest()
        return [digest(request.image), digest(self.picture), words]

    @cached_property
    def changed(self) -> np.ndarray:
        """Bool [H, W]: `change_map` of the source and the edited picture, which must be there."""
        return change_map(self.case.request.image, self.picture)


class CaseFolder:
    """The folder of one editor's finished cases.

    Args:
        folder: laid out as the module's docstring says.
        pictures: a folder to read the pictures from instead, named by case id, in any usual format.
        focus: the folder of the evaluation's own editor, if `folder` belongs to another one.
    """

    def __init__(self, folder: str | Path, pictures: str | Path | None = None, focus: str | Path | None = None):
        self.folder = Path(folder)
        self.focus = Path(focus) if focus is not None else self.folder
        self.pictures = Path(pictures) if pictures is not None else self.folder / "pictures"

    @classmethod
    def of_pictures(cls, folder: str | Path, other: str | Path | None = None) -> CaseFolder:
        """From the `out` of another run, or from a folder of pictures alone.

        For the latter, masks, maps and failures are read from `other`, by default that folder itself.
        """
        folder = Path(folder)
        return cls(folder) if (folder / "pictures").is_dir() else cls(other or folder, pictures=folder)

    def outcomes(self, cases: Iterable[EditCase]) -> Iterator[Outcome]:
        """Read the scored cases back; a case whose picture is missing or unreadable fails with this reason."""
        for case in cases:
            if not case.scored:
                continue
            outcome = Outcome(
                case,
                mask=_read(self._path("masks", case.id)),
                probability=_read(self._path("probability", case.id)),
                patches=_read(self._path("grid", case.id)),
                focus=_read(self.focus / "masks" / f"{case.id}.png"),
                answers=self.answers(case.id),
            )
            reason = self.failure(case.id)
            yield self._with_picture(outcome) if reason is None else replace(outcome, failed=reason)

    def _with_picture(self, outcome: Outcome) -> Outcome:
        case = outcome.case
        try:
            picture = self.picture(case.id)
        except ValueError as error:
            return replace(outcome, failed=str(error))
        if picture is None:
            return replace(outcome, failed=f"no picture {case.id} in {self.pictures}")
        size = case.request.image.size
        if picture.size == size:
            return replace(outcome, picture=picture)
        note = f"{picture.width}x{picture.height}, the source has {size[0]}x{size[1]}"
        return replace(outcome, picture=picture, note=note)

    def picture(self, case_id: str) -> Image.Image | None:
        """The edited picture of a case, or None. ValueError: it cannot be read."""
        path = self.picture_path(case_id)
        return None if path is None else open_picture(path)

    def picture_path(self, case_id: str) -> Path | None:
        """The file of the edited picture, in any usual format, or None."""
        return next((p for s in SUFFIXES if (p := self.pictures / f"{case_id}{s}").is_file()), None)

    def failure(self, case_id: str) -> str | None:
        """Why a case failed, or None."""
        path = self._failure(case_id)
        return path.read_text() if path.is_file() else None

    def stamp(self, case_id: str) -> str:
        """A text that changes whenever a file of the case that is scored changes."""
        paths = [self._path(kind, case_id) for kind in ("masks", "probability", "grid")]
        paths = [self.picture_path(case_id), *paths, self.focus / "masks" / f"{case_id}.png", self._failure(case_id)]
        paths += self._answers(case_id)
        files = [path.stat() for path in paths if path and path.is_file()]
        return " ".join(f"{file.st_mtime_ns}:{file.st_size}" for file in files)

    def answers(self, case_id: str) -> dict[str, dict]:
        """The stored answers of judges about a case, by key of the judge."""
        return {path.parent.name: json.loads(path.read_text()) for path in self._answers(case_id)}

    def write_answers(self, key: str, case_id: str, content: dict) -> None:
        """Save the answers of a judge about a case."""
        write_atomic(self.folder / "answers" / key / f"{case_id}.json", json.dumps(content, indent=1).encode())

    def grid_side(self) -> int:
        """Side of the saved grid maps; 0 if none was saved."""
        path = next((self.folder / "grid").glob("*.png"), None)
        return Image.open(path).width if path else 0

    def record(self, case_id: str) -> dict:
        """How the case was made, empty where it is not finished."""
        path = self._record(case_id)
        return json.loads(path.read_text()) if path.is_file() else {}

    def seconds(self, case_id: str) -> float:
        """Seconds of an edit without loading; NaN if not recorded."""
        times = self.record(case_id).get("seconds")
        return sum(times.values()) if times else float("nan")

    def write_region(self, result: EditResult) -> None:
        """Save the region of a case: mask, probability and grid map. The case is unfinished then."""
        self._record(result.id).unlink(missing_ok=True)
        write_atomic(self._path("masks", result.id), png(result.mask))
        write_atomic(self._path("probability", result.id), png(sixteen_bit(result.probability)))
        if result.patches is not None:
            write_atomic(self._path("grid", result.id), png(sixteen_bit(result.patches)))

    def write_picture(self, result: EditResult) -> None:
        """Save an edited picture; its record is written last and marks the case as finished."""
        self._record(result.id).unlink(missing_ok=True)
        write_atomic(self.pictures / f"{result.id}.png", png(result.image))
        write_atomic(self._record(result.id), json.dumps(result.record, indent=1).encode())
        self._failure(result.id).unlink(missing_ok=True)

    def write_failure(self, case_id: str, reason: str) -> None:
        """Save why a case failed, and delete the picture and record of an earlier run."""
        self._record(case_id).unlink(missing_ok=True)
        (self.pictures / f"{case_id}.png").unlink(missing_ok=True)
        write_atomic(self._failure(case_id), reason.encode())

    def _record(self, case_id: str) -> Path:
        return self.folder / "records" / f"{case_id}.json"

    def _failure(self, case_id: str) -> Path:
        return self.folder / "failures" / f"{case_id}.txt"

    def _answers(self, case_id: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"answers/*/{case_id}.json") if path.is_file())

    def _path(self, kind: str, case_id: str) -> Path:
        return self.folder / kind / f"{case_id}.png"


def _read(path: Path) -> np.ndarray | None:
    """A saved map as [H, W] in [0, 1], or None without a file."""
    if not path.is_file():
        return None
    values = np.asarray(Image.open(path))
    return values.astype(np.float32) / (255 if values.dtype == np.uint8 else 65535)


def cell_means(values: np.ndarray, side: int) -> np.ndarray:
    """Mean of [H, W] values over each cell of a [side, side] grid, for any picture size."""
    return downsample(torch.tensor(values)[None, None], side)[0].view(side, side).numpy()
