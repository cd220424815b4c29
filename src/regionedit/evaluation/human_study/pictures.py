"""The pictures of a study: which cases every system has, and how a form shows them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from regionedit.evaluation.charts import data_uri
from regionedit.images import SUFFIXES, open_picture, png

if TYPE_CHECKING:
    from regionedit.evaluation.benchmarks import Benchmark

LONGER_SIDE = 512  # pixels
LOSSLESS = 256  # longer side in pixels up to which a picture is embedded without loss
QUALITY = 92


def find_picture(folder: str | Path, case_id: str) -> Path | None:
    """A system's picture of a case, in `folder`/pictures if that exists, else in `folder`; None if it has none."""
    inner = Path(folder) / "pictures"
    pictures = inner if inner.is_dir() else Path(folder)
    return next((path for suffix in SUFFIXES if (path := pictures / f"{case_id}{suffix}").is_file()), None)


def choose_cases(
    ids: Iterable[str], systems: Mapping[str, str], count: int, rng: np.random.Generator
) -> tuple[list[str], dict[str, str]]:
    """Draw cases at random from those that every system has a readable picture for.

    With the same random generator, a smaller count gives the first of a larger count's cases.

    Args:
        ids: of the benchmark's cases.
        systems: name -> folder, with pictures as `find_picture` finds them; failures/{id}.txt says why one is missing.
        count: number of cases, 0 for all.

    Returns:
        The chosen ids, and `{id: reason}` of those found ineligible; only pictures of drawn cases are opened.

    Raises:
        ValueError: too few cases are eligible.
    """
    ids = list(ids)
    missing = {i: [name for name, folder in systems.items() if not find_picture(folder, i)] for i in ids}
    left_out = {
        i: "; ".join(f"{name}: {_reason(systems[name], i)}" for name in names) for i, names in missing.items() if names
    }
    eligible = [i for i in ids if i not in left_out]
    chosen: list[str] = []
    for place in rng.permutation(len(eligible)):
        if count and len(chosen) == count:
            break
        case_id = eligible[place]
        if faults := [why for name, folder in systems.items() if (why := _unreadable(name, folder, case_id))]:
            left_out[case_id] = "; ".join(faults)
        else:
            chosen.append(case_id)
    if not chosen or len(chosen) < count:
        reasons = "; ".join(f"{i} ({reason})" for i, reason in [*left_out.items()][:3])
        raise ValueError(
            f"cases: {count or 'all'} requested, but of the benchmark's {len(ids)} only {len(chosen)} have a readable "
            f"picture of every system; left out: {reasons or 'none'}{', ...' if len(left_out) > 3 else ''}"
        )
    return chosen, left_out


def _unreadable(name: str, folder: str, case_id: str) -> str:
    try:
        open_picture(find_picture(folder, case_id))
    except ValueError as error:
        return f"{name}: {error}"
    return ""


def _reason(folder: str, case_id: str) -> str:
    file = Path(folder) / "failures" / f"{case_id}.txt"
    return file.read_text().strip() if file.is_file() else "no picture"


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


def load_cases(benchmark: Benchmark, chosen: list[str], systems: Mapping[str, str]) -> dict[str, ShownCase]:
    """The chosen cases by id, in the order of `chosen`."""
    cases = {}
    for case in benchmark:
        if case.id in chosen:
            source = case.request.image
            edited = {name: open_picture(find_picture(folder, case.id)) for name, folder in systems.items()}
            scale = min(1.0, LONGER_SIDE / max(source.size))
            size = tuple(max(1, round(side * scale)) for side in source.size)
            cases[case.id] = ShownCase(
                case.request.instruction,
                _embedded(source, size),
                {name: _embedded(picture, size) for name, picture in edited.items()},
                tuple(name for name, picture in edited.items() if picture.size != source.size),
            )
        if len(cases) == len(chosen):
            break
    return {case_id: cases[case_id] for case_id in chosen}


def _embedded(picture: Image.Image, size: tuple[int, int]) -> str:
    """The picture as a data URI, encoded in the same way for every system and without the file's metadata."""
    picture = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
    bare = Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())
    if max(size) <= LOSSLESS:
        return data_uri(png(bare))
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return data_uri(buffer.getvalue(), "jpeg")
