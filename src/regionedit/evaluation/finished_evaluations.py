"""Finished evaluations, and whether their numbers may share a column.

Two numbers may share a column if everything that changes them is equal: the networks of the metric, the reference
picture, the caption filter, the resizing, the cases. The keys of a protocol block that change no number are listed in
`NOT_COMPARED`, each with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from regionedit.command_line import one_line
from regionedit.evaluation import METRICS
from regionedit.evaluation.editor_captions import UNKNOWN, mixed
from regionedit.evaluation.judge_metrics import Judged
from regionedit.evaluation.landing_metrics import Landed
from regionedit.evaluation.protocols import BACKBONES
from regionedit.evaluation.region_metrics import CellRegion, CellRegionBest

NOT_COMPARED = {
    "threshold": "each system has its own threshold; the resulting regions are scored in the same way",
    "captions": "editors that were given the captions are never shown beside those that described them",
    "describer": "each system describes in its own way",
    "columns": "they choose the metrics of a table, not how these are computed",
}
NAMED = 3  # case ids that a message lists
NEEDED = ("benchmark", "protocol", "n", "failed", "metrics")


class IncomparableError(ValueError):
    """Numbers that may not share a column; `lines` gives the reasons, one difference each."""

    def __init__(self, lines: Sequence[str]):
        super().__init__("; ".join(lines))
        self.lines = list(lines)


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation: its name in tables, and its folder, which may hold the rows, cases.parquet."""

    name: str
    folder: Path
    summary: dict

    @property
    def block(self) -> dict[str, Any]:
        """The protocol block."""
        return self.summary["protocol"]

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """One row per case, indexed by id; None if the rows were not kept. ValueError: the file is damaged."""
        path = self.folder / "cases.parquet"
        if not path.is_file():
            return None
        try:
            return pd.read_parquet(path).set_index("id", verify_integrity=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: not the rows of an evaluation: {one_line(error)}") from None

    def values(self, metric: str) -> pd.Series:
        """The values that the metric's mean is over, indexed by case id. ValueError: the rows were not kept."""
        if self.rows is None:
            raise ValueError(f"{self.name}: {self.folder} has no cases.parquet; run the evaluation again to write it")
        if metric not in self.rows:
            return pd.Series(dtype=float)
        return self.rows.loc[self._averaged(metric), metric].dropna()

    def count_scored(self, metric: str) -> int | None:
        """How many cases did not fail of those that the metric's mean is over; None if it needs rows that were not
        kept."""
        if not (METRICS[metric].headline and self.block.get("headline_operations")):
            return self.summary["n"] - self.summary["failed"]
        if self.rows is None:
            return None
        return int((self._averaged(metric) & self.rows["failed"].isna()).sum())

    def _averaged(self, metric: str) -> pd.Series:
        """Which rows the metric's mean is over: those of the headline operations, or all."""
        headline = self.block.get("headline_operations")
        if headline and METRICS[metric].headline:
            return self.rows["operation"].isin(headline)
        return pd.Series(True, self.rows.index)


def read_evaluations(paths: Sequence[str | Path]) -> list[Evaluation]:
    """Read the evaluations in these folders or summary.json files; each is named by its folder.

    Raises:
        ValueError: a path is not an evaluation, or is given twice; one line that names it.
    """
    files = [Path(path) if Path(path).suffix == ".json" else Path(path) / "summary.json" for path in paths]
    folders = [file.parent for file in files]
    evaluations = []
    for file, folder in zip(files, folders, strict=True):
        if folders.count(folder) > 1:
            raise ValueError(f"{folder}: given twice")
        try:
            summary = json.loads(file.read_text())
        except OSError as error:
            raise ValueError(f"{file}: {error.strerror}; expected a folder that evaluate.py wrote") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not JSON: {error}") from None
        missing = [key for key in NEEDED if not isinstance(summary, dict) or key not in summary]
        if missing:
            raise ValueError(f"{file}: not the summary of an evaluation: lacks {', '.join(missing)}")
        alone = [other.resolve().name for other in folders].count(folder.resolve().name) == 1
        evaluations.append(Evaluation(folder.resolve().name if alone else str(folder), folder, summary))
    return evaluations


def differences(evaluations: Sequence[Evaluation], columns: Mapping[str, str]) -> list[str]:
    """Why the evaluations may not share columns, one line for each difference; empty if they may.

    A key is compared only for the columns that it changes: another DINO does not affect the columns of CLIP. Only
    columns with values in at least two evaluations are compared.

    Args:
        columns: head -> metric.
    """
    lines: dict[str, list[str]] = {}  # line -> columns, in order of appearance
    for line in mixed({e.name: e.block for e in evaluations}):
        lines[line] = list(columns)
    for title, metric in columns.items():
        measured = [e for e in evaluations if metric in e.summary["metrics"]]
        for one, other in pairwise(measured):
            for line in _differences(one, other, metric):
                lines.setdefault(line, []).append(title)
    return [line if len(of) == len(columns) else f"{line} (columns: {', '.join(of)})" for line, of in lines.items()]


def ignored_differences(evaluations: Sequence[Evaluation]) -> list[str]:
    """The differences that change no number, each with its reason, for the notes of the table."""
    lines = []
    for key, reason in NOT_COMPARED.items():
        values = [e.block.get(key, UNKNOWN) for e in evaluations]
        if key != "columns" and any(value != values[0] for value in values):
            listed = ", ".join(f"{value} in {e.name}" for value, e in zip(values, evaluations, strict=True))
            lines.append(f"{key} differs ({reason}): {listed}")
    return lines


def _differences(one: Evaluation, other: Evaluation, metric: str) -> Iterator[str]:
    facts = [{"benchmark": e.summary["benchmark"]} | dict(_flat(e.block)) for e in (one, other)]
    for key in dict.fromkeys([*facts[0], *facts[1]]):
        values = [repr(block[key]) if key in block else "nothing" for block in facts]
        if values[0] != values[1] and _changes(key, metric):
            yield f"{key}: {values[0]} in {one.name}, {values[1]} in {other.name}"
            if key == "benchmark":
                return  # everything else differs too
    if one.rows is not None and other.rows is not None and set(one.rows.index) != set(other.rows.index):
        ids = [one.rows.index.difference(other.rows.index), other.rows.index.difference(one.rows.index)]
        alone = [
            f"{len(i)} only in {e.name} ({', '.join(map(str, i[:NAMED]))}{', ...' if len(i) > NAMED else ''})"
            for e, i in zip((one, other), ids, strict=True)
            if len(i)
        ]
        yield f"cases: {len(one.rows.index.intersection(other.rows.index))} in both, {', '.join(alone)}"


def _changes(key: str, metric: str) -> bool:
    """Whether this key of a protocol block changes the metric's number."""
    if key in NOT_COMPARED:
        return False
    if key in BACKBONES:
        return METRICS[metric].backbone == key
    if key == "grid":
        return isinstance(METRICS[metric], CellRegion | CellRegionBest)
    if key == "headline_operations":
        return METRICS[metric].headline
    if key == "conventions.landed":
        return isinstance(METRICS[metric], Landed)
    if key.startswith("vlm_judge."):
        return isinstance(METRICS[metric], Judged)
    return True


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The block with nested keys joined by dots; `columns` stays one value."""
    for key, value in block.items():
        if isinstance(value, dict) and key not in NOT_COMPARED:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
