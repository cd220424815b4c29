"""What the tests of the human study share: a drawn benchmark, systems' pictures, simulated raters."""

import csv
from collections.abc import Callable
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation.benchmarks import BENCHMARKS, Benchmark
from regionedit.evaluation.human_study.assignment import assign
from regionedit.evaluation.human_study.make import StudySettings
from regionedit.evaluation.human_study.sheets import NAMES, answer_columns, sheets
from regionedit.records import EditCase, EditRequest

SCORED = (0, 2, 3, 4, 5, 6, 7, 8)  # numbers of the drawn benchmark's cases, of nine


class Drawn(Benchmark):
    """Random pictures; the folder is named `{cases}` or `{cases}x{side}`."""

    metrics = ()
    protocol = {}

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        count, _, side = Path(folder).name.partition("x")
        self.kept, self.side = range(int(count)), int(side or 16)
        self.counts = {"cases": int(count)}

    def _case(self, number: int) -> EditCase:
        shape = (self.side * 3 // 4, self.side, 3)
        picture = Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8))
        request = EditRequest(picture, f"make <thing {number}> </script> blue")
        return EditCase(f"case-{number}", request, "replace", scored=number != 1)


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


def write_key(
    path: Path,
    names: tuple[str, ...] = ("one", "two"),
    design: str = "likert",
    shown: str = "pairs",
    raters: int = 4,
    trials: int = 0,
    repeats: int = 0,
) -> Path:
    """The key of a study of the `SCORED` cases, as `make` writes it, without making its forms."""
    system_sets = [names] if shown == "all" else list(combinations(names, 2))
    cases = [f"case-{i}" for i in SCORED]
    each = trials or len(cases) * len(system_sets)
    made = assign("12345678", cases, system_sets, raters, each, repeats, np.random.default_rng(3))
    path.write_bytes(sheets(made, design, 3)[0])
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def answer(key: Path, out: Path, rate: Callable[[str, dict, str], object]) -> list[Path]:
    """Answer sheets of all raters, a file each.

    Args:
        rate: (rater, row of the key, question) -> score of a picture; the likert answer itself, and under forced choice
            what the largest of a trial is chosen by. None: not answered.
    """
    rows = read_rows(key)
    likert = rows[0]["design"] == "likert"
    out.mkdir(exist_ok=True)
    paths = []
    for rater, own in groupby(rows, lambda row: row["rater"]):
        lines = [answer_columns(rows[0]["design"])]
        for trial, page in groupby(own, lambda row: row["trial"]):
            pictures = list(page)
            given = [[rate(rater, picture, name) for name in NAMES] for picture in pictures]
            if likert:
                cells = [["" if value is None else value for value in values] for values in given]
                lines += [[rater, trial, p["position"], *values] for p, values in zip(pictures, cells, strict=True)]
            else:
                best = [pictures[int(np.argmax(values))]["position"] for values in zip(*given, strict=True)]
                lines.append([rater, trial, *best])
        paths.append(out / f"answers_rater_{rater}.csv")
        with paths[-1].open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    return paths
