"""Folders as evaluate.py leaves them, small ones, and what a comparison shows of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from regionedit.evaluation import BENCHMARKS
from regionedit.evaluation.compare import compare
from regionedit.evaluation.finished_evaluations import read_evaluations
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.tables import TextTable

PROTOCOL = {
    "benchmark": "emu_edit",
    "note": "as in a test",
    "backbones": {"judge": "B/32", "dino": "vits16"},
    "reference": "source",
    "caption_filter": "identical",
    "resize": "bicubic",
    "n": 4,
    "columns": {
        "CLIPdir": "clip_direction",
        "CLIPout": "clip_text",
        "L1": "l1",
        "CLIPimg": "clip_image",
        "DINO": "dino",
    },
    "unstated": {"CLIPdir": "normalised here"},
}
BLOCK = {
    "name": "ultraedit",
    "judge": "B/32",
    "dino": "vits16",
    "reference": "source",
    "caption_filter": "identical",
    "resize": "bicubic",
    "n_expected": 4,
    "n_found": 4,
    "counts": {"rows": 5, "kept": 4},
    "as_run": {"split": "5 rows"},
    "grid": 16,
    "threshold": 0.5,
    "headline_operations": [],
    "columns": PROTOCOL["columns"],
}
A = {"clip_direction": [0.1, 0.2, 0.3, 0.4], "l1": [0.02, 0.04, 0.06, 0.08], "dino": [0.9, 0.9, 0.9, 0.9]}
B = {"clip_direction": [0.1, 0.1, 0.2, 0.2], "l1": [0.01, 0.02, 0.03, 0.04], "dino": [0.8, 0.9, 0.9, 0.9]}
IDS = ["0", "1", "2", "3"]


def scores(values: dict[str, list]) -> dict:
    found = {name: np.array(column, float) for name, column in values.items()}
    return {name: interval(column[~np.isnan(column)]) for name, column in found.items()}


def evaluation(folder: Path, values: dict[str, list], ids=IDS, rows: bool = True, failed: int = 0, **changes) -> Path:
    """A folder as evaluate.py leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    baselines = changes.pop("baselines", {})
    benchmark = changes.pop("benchmark", "emu_edit")
    block = {key: value for key, value in (BLOCK | changes).items() if value is not None}
    summary = {"benchmark": benchmark, "protocol": block, "name": "learned", "n": len(ids), "failed": failed}
    summary |= {"metrics": scores(values), "by": {}, "baselines": baselines, "ceiling": None}
    (folder / "summary.json").write_text(json.dumps(summary))
    if rows:
        frame = pd.DataFrame({"id": ids, "operation": ["add"] * len(ids), "failed": [None] * len(ids)} | values)
        frame.to_parquet(folder / "cases.parquet")
    return folder


def known_benchmarks(folder: Path, monkeypatch) -> Path:
    """`folder` becomes the working folder; it has the protocol `ultraedit`."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(BENCHMARKS, "emu_edit", BENCHMARKS["microworld"])
    (folder / "configs/protocols").mkdir(parents=True)
    (folder / "configs/protocols/ultraedit.yaml").write_text(yaml.safe_dump(PROTOCOL, sort_keys=False))
    return folder


def shown(*folders, **options):
    return compare(read_evaluations(folders), **options)


def cells(table: TextTable) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(table.heads[1:], row[1:], strict=True)) for row in table.rows}
