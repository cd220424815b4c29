"""Finished evaluations, and whether their numbers may stand in one column.

Two numbers may where everything that changes them is equal: the networks behind the metric, the reference picture, the
caption filter, the way of resizing, the cases. What else a protocol block holds is listed in `NOT_COMPARED`, with the
reason.
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

from regionedit.evaluation import METRICS
from regionedit.evaluation.protocols import BACKBONES, backbone_of

NOT_COMPARED = {
    "threshold": "where a system cuts its own region; the cut region is scored alike",
    "columns": "which metrics a table shows, not how they are computed",
}
# The only metrics that read the region on the grid of the protocol block.
ON_GRID = ("region_iou", "region_iou_best", "region_precision", "region_recall", "region_area")
NAMED = 3  # ids of cases that a message names
NEEDED = ("benchmark", "protocol", "n", "failed", "metrics")


class IncomparableError(ValueError):
    """Numbers that may not stand in one column; `lines` says why, one difference each."""

    def __init__(self, lines: Sequence[str]):
        super().__init__("; ".join(lines))
        self.lines = list(lines)


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation.

    Args:
        name: in tables.
        folder: where summary.json lies, and cases.parquet where its rows were kept.
        summary: what summary.json holds.
    """

    name: str
    folder: Path
    summary: dict

    @property
    def block(self) -> dict[str, Any]:
        """The protocol block."""
        return self.summary["protocol"]

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """A row per case, by id; None where the rows were not kept.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "cases.parquet"
        if not path.is_file():
            return None
        try:
            return pd.read_parquet(path).set_index("id", verify_integrity=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: not the rows of an evaluation: {' '.join(str(error).split())}") from None

    def values(self, metric: str) -> pd.Series:
        """The metric's values by case id, those that its mean is over.

        Raises:
            ValueError: the rows were not kept.
        """
        if self.rows is None:
            raise ValueError(f"{self.name}: {self.folder} has no cases.parquet, whose rows this needs")
        if metric not in self.rows:
            return pd.Series(dtype=float)
        values = self.rows[metric]
        headline = self.block.get("headline_operations")
        if headline and METRICS[metric].headline:
            values = values[self.rows["operation"].isin(headline)]
        return values.dropna()


def read_evaluations(paths: Sequence[str | Path]) -> list[Evaluation]:
    """The evaluations of these folders or summary.json files, named by folder.

    Raises:
        ValueError: one is not an evaluation, or is given twice; one line that names it.
    """
    files = [Path(path) if Path(path).suffix == ".json" else Path(path) / "summary.json" for path in paths]
    folders = [file.parent for file in files]
    found = []
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
        found.append(Evaluation(folder.resolve().name if alone else str(folder), folder, summary))
    return found


def differences(evaluations: Sequence[Evaluation], columns: Mapping[str, str]) -> list[str]:
    """What keeps the evaluations out of common columns, a line for each difference; empty: nothing does.

    A key counts for the columns that it changes: another DINO leaves CLIP's columns as they are. Only columns that two
    evaluations have values for are looked at.

    Args:
        columns: head -> metric.
    """
    lines: dict[str, list[str]] = {}  # line -> columns, in order of appearance
    for title, metric in columns.items():
        together = [e for e in evaluations if metric in e.summary["metrics"]]
        for one, other in pairwise(together):
            for line in _differences(one, other, metric):
                lines.setdefault(line, []).append(title)
    return [line if len(of) == len(columns) else f"{line} (columns: {', '.join(of)})" for line, of in lines.items()]


def ignored_differences(evaluations: Sequence[Evaluation]) -> list[str]:
    """The differences that change no number, with their reason, to be told with the table."""
    lines = []
    for key, reason in NOT_COMPARED.items():
        values = [e.block.get(key) for e in evaluations]
        if key != "columns" and any(value != values[0] for value in values):
            told = ", ".join(f"{value} in {e.name}" for value, e in zip(values, evaluations, strict=True))
            lines.append(f"{key} differs ({reason}): {told}")
    return lines


def _differences(one: Evaluation, other: Evaluation, metric: str) -> Iterator[str]:
    facts = [{"benchmark": e.summary["benchmark"]} | dict(_flat(e.block)) for e in (one, other)]
    for key in dict.fromkeys([*facts[0], *facts[1]]):
        told = [repr(found[key]) if key in found else "nothing" for found in facts]
        if told[0] != told[1] and _changes(key, metric):
            yield f"{key}: {told[0]} in {one.name}, {told[1]} in {other.name}"
            if key == "benchmark":
                return  # nothing else could be alike
    if one.rows is not None and other.rows is not None and set(one.rows.index) != set(other.rows.index):
        ids = [one.rows.index.difference(other.rows.index), other.rows.index.difference(one.rows.index)]
        alone = [
            f"{len(i)} only in {e.name} ({', '.join(map(str, i[:NAMED]))}{', ...' if len(i) > NAMED else ''})"
            for e, i in zip((one, other), ids, strict=True)
            if len(i)
        ]
        yield f"cases: {len(one.rows.index.intersection(other.rows.index))} in both, {', '.join(alone)}"


def _changes(key: str, metric: str) -> bool:
    """Does this key of a protocol block change the metric's number?"""
    if key in NOT_COMPARED:
        return False
    if key in BACKBONES:
        return backbone_of(metric) == key
    if key == "grid":
        return metric in ON_GRID
    if key == "headline_operations":
        return METRICS[metric].headline
    return True


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; `columns` stays whole."""
    for key, value in block.items():
        if isinstance(value, dict) and key not in NOT_COMPARED:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
