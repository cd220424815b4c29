"""The pictures of a study: which cases every system has, and how a form shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from regionedit.images import SUFFIXES, open_picture, png

if TYPE_CHECKING:
    from regionedit.evaluation.benchmarks import Benchmark

LONGER_SIDE = 512  # pixels
LOSSLESS = 256  # longer side in pixels up to which a picture is embedded without loss
QUALITY = 92


class SystemFolder:
    """One system's edited pictures.

    Args:
        name: the system's name in the analysis; raters never see it.
        folder: the `out` of an evaluation (pictures/{id}.png), or pictures named by case id. The evaluation's
            failures/{id}.txt hold the reasons of missing ones.

    Raises:
        ValueError: no such folder.
    """

    def __init__(self, name: str, folder: str | Path):
        self.name, self.folder = name, Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"systems: {name}: {folder} is not a folder")
        inner = self.folder / "pictures"
        self.pictures = inner if inner.is_dir() else self.folder

    def why_missing(self, case_id: str) -> str:
        """Why there is no picture of the case, or empty."""
        if self._find(case_id):
            return ""
        reason = self.folder / "failures" / f"{case_id}.txt"
        return f"{self.name}: {reason.read_text().strip() if reason.is_file() else 'no picture'}"

    def open(self, case_id: str) -> Image.Image:
        """The edited picture, upright RGB.

        Raises:
            ValueError: it is missing or unreadable.
        """
        path = self._find(case_id)
        if path is None:
            raise ValueError(f"{self.name}: no picture")
        return open_picture(path)

    def _find(self, case_id: str) -> Path | None:
        return next((p for s in SUFFIXES if (p := self.pictures / f"{case_id}{s}").is_file()), None)


def choose_cases(
    ids: Iterable[str], systems: list[SystemFolder], count: int, rng: np.random.Generator
) -> tuple[list[str], dict[str, str]]:
    """Draw cases at random from those that every system has a readable picture for.

    With the same random generator, a smaller count gives the first of a larger count's cases.

    Args:
        ids: of the benchmark's cases.
        count: number of cases, 0 for all.

    Returns:
        The chosen ids, and `{id: reason}` of those found ineligible; only pictures of drawn cases are opened.

    Raises:
        ValueError: too few cases are eligible.
    """
    ids = list(ids)
    lacking = {i: "; ".join(filter(None, (system.why_missing(i) for system in systems))) for i in ids}
    left_out = {i: reason for i, reason in lacking.items() if reason}
    eligible = [i for i in ids if i not in left_out]
    chosen: list[str] = []
    for place in rng.permutation(len(eligible)):
        if count and len(chosen) == count:
            break
        try:
            for system in systems:
                system.open(eligible[place])
        except ValueError as error:
            left_out[eligible[place]] = f"{system.name}: {error}"
        else:
            chosen.append(eligible[place])
    if not chosen or len(chosen) < count:
        reasons = "; ".join(f"{i} ({reason})" for i, reason in [*left_out.items()][:3])
        raise ValueError(
            f"cases: {count or 'all'} asked for, but of the benchmark's {len(ids)} only {len(chosen)} have a readable "
            f"picture of every system; left out: {reasons or 'none'}{', ...' if len(left_out) > 3 else ''}"
        )
    return chosen, left_out


@dataclass(frozen=True)
class ShownCase:
    """A case as a form shows it.

    Args:
        instruction: its text.
        source: data URI of the source picture.
        edited: system -> data URI of its picture, at the source's size.
        resized: the systems whose picture had another size than the source.
    """

    instruction: str
    source: str
    edited: dict[str, str]
    resized: tuple[str, ...]


def load_cases(benchmark: Benchmark, chosen: list[str], systems: list[SystemFolder]) -> dict[str, ShownCase]:
    """The chosen cases by id, in the order of `chosen`."""
    wanted, cases = set(chosen), {}
    for case in benchmark:
        if case.id not in wanted:
            continue
        source = case.request.image
        edited = {system.name: system.open(case.id) for system in systems}
        size = form_size(source)
        cases[case.id] = ShownCase(
            case.request.instruction,
            data_uri(source, size),
            {name: data_uri(picture, size) for name, picture in edited.items()},
            tuple(name for name, picture in edited.items() if picture.size != source.size),
        )
        if len(cases) == len(wanted):
            break
    return {case_id: cases[case_id] for case_id in chosen}


def form_size(source: Image.Image) -> tuple[int, int]:
    """Width and height at which a form shows a case: the source's size, or smaller."""
    scale = min(1.0, LONGER_SIDE / max(source.size))
    return max(1, round(source.width * scale)), max(1, round(source.height * scale))


def data_uri(picture: Image.Image, size: tuple[int, int]) -> str:
    """The picture as a data URI, encoded in the same way for every system and without the file's metadata.

    Pictures of up to 256 pixels are PNG, larger ones JPEG (quality 92, no chroma subsampling).
    """
    picture = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
    bare = Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())
    if max(size) <= LOSSLESS:
        return f"data:image/png;base64,{base64.b64encode(png(bare)).decode()}"
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
