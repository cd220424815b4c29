"""What the tests of the human study share: a drawn benchmark, systems' pictures, simulated raters."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation.benchmarks import BENCHMARKS, Benchmark
from regionedit.evaluation.human_study.make import StudySettings
from regionedit.evaluation.human_study.questions import NAMES, answer_columns
from regionedit.records import EditCase, EditRequest


class Drawn(Benchmark):
    """Random pictures; the folder is named `{cases}` or `{cases}x{side}`."""

    metrics = ()
    protocol = {}

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        count, _, side = Path(folder).name.partition("x")
        self.count, self.side = int(count), int(side or 16)
        self.counts = {"cases": self.count}

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        for i in range(self.count):
            pixels = np.random.default_rng(i).integers(0, 256, (self.side * 3 // 4, self.side, 3), dtype=np.uint8)
            request = EditRequest(Image.fromarray(pixels), f"make <thing {i}> </script> blue")
            yield EditCase(f"case-{i}", request, "replace", scored=i != 1)


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The benchmark `drawn`; import it into a test file to use it there."""
    monkeypatch.setitem(BENCHMARKS, "drawn", Drawn)


def write_systems(root: Path, data: str, names: tuple[str, ...]) -> dict[str, str]:
    """Folders of edited pictures by system name; every system has its own pictures of every case."""
    for number, name in enumerate(names):
        folder = root / name / "pictures"
        folder.mkdir(parents=True)
        for case in Drawn(data):
            edited = case.request.image.copy()
            edited.paste((40 * number, 255, 0), (2, 2, 8, 8))
            edited.save(folder / f"{case.id}.png")
    return {name: str(root / name) for name in names}


def settings(root: Path, systems: dict[str, str], **changes) -> StudySettings:
    given = {"benchmark": "drawn", "data": "9", "out": str(root / "study"), "raters": 4, "seed": 3}
    return StudySettings(systems=systems, **(given | changes))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def answer(study: Path, out: Path, rate: Callable[[str, dict, str], object]) -> list[Path]:
    """Answer sheets of all raters, a file each.

    Args:
        rate: (rater, row of the key, question) -> score of a picture; the likert answer itself, and under forced choice
            what the largest of a trial is chosen by. None: not answered.
    """
    key = read_rows(study / "key.csv")
    design = key[0]["design"]
    out.mkdir(exist_ok=True)
    paths = []
    for rater, own in groupby(key, lambda row: row["rater"]):
        lines = [",".join(answer_columns(design))]
        for trial, page in groupby(own, lambda row: row["trial"]):
            pictures = list(page)
            given = [[rate(rater, picture, name) for name in NAMES] for picture in pictures]
            if design == "likert":
                cells = [["" if v is None else str(v) for v in values] for values in given]
                lines += [",".join([rater, trial, p["position"], *v]) for p, v in zip(pictures, cells, strict=True)]
            else:
                best = ["" if None in v else pictures[int(np.argmax(v))]["position"] for v in zip(*given, strict=True)]
                lines.append(",".join([rater, trial, *best]))
        paths.append(out / f"answers_rater_{rater}.csv")
        paths[-1].write_text("\n".join(lines) + "\n")
    return paths
