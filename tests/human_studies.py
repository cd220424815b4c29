"""What the tests of the human study share: a drawn benchmark, systems' pictures, simulated raters."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
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
    for place, name in enumerate(names):
        (root / name / "pictures").mkdir(parents=True)
        for case in Drawn(data):
            edited = case.request.image.copy()
            edited.paste((40 * place, 255, 0), (2, 2, 8, 8))
            edited.save(root / name / "pictures" / f"{case.id}.png")
    return {name: str(root / name) for name in names}


def settings(root: Path, systems: dict[str, str], **changes) -> StudySettings:
    given = {"benchmark": "drawn", "data": "9", "out": str(root / "study"), "raters": 4, "seed": 3}
    return StudySettings(systems=systems, **(given | changes))


def write_key(path: Path, names=("one", "two"), design="likert", shown="pairs", raters=4, trials=0, repeats=0) -> Path:
    """The key of a study of the `SCORED` cases, as `make` writes it, without making its forms."""
    system_sets = [names] if shown == "all" else list(combinations(names, 2))
    cases = [f"case-{i}" for i in SCORED]
    each = trials or len(cases) * len(system_sets)
    made = assign("12345678", cases, system_sets, raters, each, repeats, np.random.default_rng(3))
    path.write_bytes(sheets(made, design, 3)[0])
    return path


def read_sheet(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def number(row: dict) -> int:
    return int(row["case"].split("-")[1])


def answer(key: Path, out: Path, rate: Callable[[str, dict, str], object]) -> list[Path]:
    """Answer sheets of all raters, a file each.

    `rate` maps (rater, row of the key, question) to the likert answer or, under forced choice, to what the largest of
    a trial is chosen by. None: not answered.
    """
    rows = read_sheet(key)
    given = [[rate(row["rater"], row, name) for name in NAMES] for row in rows.to_dict("records")]
    rows[[*NAMES]] = pd.DataFrame(given, dtype=object)
    if (design := rows["design"][0]) == "forced_choice":
        best = rows[[*NAMES]].astype(float).groupby(rows["trial"], sort=False).idxmax()
        rows = rows.drop_duplicates("trial").assign(**{name: [*rows["position"][best[name]]] for name in NAMES})
    out.mkdir(exist_ok=True)
    for rater, own in rows.groupby("rater"):
        own.to_csv(out / f"answers_rater_{rater}.csv", index=False, columns=answer_columns(design))
    return sorted(out.iterdir())
