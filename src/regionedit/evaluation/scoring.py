"""From finished cases to rows, and from rows to means with intervals."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from torch import Tensor

from regionedit.evaluation.editing import TOGETHER, chunks
from regionedit.evaluation.metrics import CaseMetric, Measure
from regionedit.evaluation.outcomes import Outcome
from regionedit.progress import track
from regionedit.records import EditCase

RESAMPLES = 1000
AREA = "area"  # the group of cases by the true mask's share of the picture
AREAS = (0.01, 0.1, 0.3)  # shares that part it; 0.01 to 0.1 is what benchmarks of small objects mean by small
NO_MASK = "no mask"
FIRST = "first"  # the column with the id of the session's first turn


class ScoreLog:
    """Scores saved case by case, so that an interrupted scoring resumes.

    Args:
        path: JSONL, one line for each case after a first line that holds `depends`.
        depends: everything that the scores depend on; a file with another first line is discarded.
        stamp: case id -> a text that changes with the files that are scored.
    """

    def __init__(self, path: Path, depends: dict, stamp: Callable[[str], str]):
        self.path, self.stamp = path, stamp
        self.header = json.dumps(depends, sort_keys=True)
        self.lines: dict[str, dict] = {}
        saved = path.read_text().splitlines(keepends=True) if path.is_file() else []
        if saved and saved[0].strip() == self.header:
            whole = [json.loads(line) for line in saved[1:] if line.endswith("\n")]  # the last may be incomplete
            self.lines = {line["id"]: line for line in whole}
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = "".join(json.dumps(line) + "\n" for line in self.lines.values())
        path.write_text(f"{self.header}\n{kept}")

    def known(self, case_id: str) -> dict | None:
        """The saved line of a case, or None if there is none or the case's files have changed."""
        line = self.lines.get(case_id)
        return line if line is not None and line["stamp"] == self.stamp(case_id) else None

    def add(self, lines: Iterable[dict]) -> None:
        """Append these lines to the file and flush it to disk."""
        with self.path.open("a") as file:
            file.writelines(json.dumps(line | {"stamp": self.stamp(line["id"])}) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())


def score_cases(
    outcomes: Callable[[Iterable[EditCase]], Iterator[Outcome]],
    cases: Iterable[EditCase],
    metrics: Mapping[str, CaseMetric],
    title: str,
    total: int,
    log: ScoreLog | None = None,
) -> pd.DataFrame:
    """Score finished cases; afterwards the metrics' states hold all of them.

    Args:
        outcomes: cases -> their outcomes; called only with cases that the log does not hold.

    Returns:
        One row per scored case: id, instruction, operation, the case's groups, `area`, `failed` (a reason, or None),
        `note`, one column per metric (NaN where it has no value); with sessions of several turns also `first`.
    """
    rows = []
    first: dict[str, str] = {}  # of every turn, scored or not
    scored = (case for case in _noting_first(track(cases, title, total), first) if case.scored)
    for together in chunks(scored, TOGETHER):
        lines = {case.id: line for case in together if log and (line := log.known(case.id))}
        fresh = list(outcomes([case for case in together if case.id not in lines]))
        new_lines = [{"id": o.case.id, "failed": o.failed, "note": o.note, "states": {}} for o in fresh]
        for name, metric in metrics.items() if fresh else ():
            metric.update(fresh)
            for line, rows_of_states in zip(new_lines, _take_last(metric), strict=True):
                line["states"][name] = rows_of_states
        if log and new_lines:
            log.add(new_lines)
        lines |= {line["id"]: line for line in new_lines}
        for name, metric in metrics.items():
            _put(metric, [lines[case.id]["states"][name] for case in together])
        for case in together:
            request = {"instruction": case.request.instruction, "operation": case.operation}
            remarks = {key: lines[case.id][key] for key in ("failed", "note")}
            rows.append({"id": case.id} | request | case.groups | {AREA: area_of(case)} | remarks)
    if any(row["id"] != first[row["id"]] for row in rows):
        rows = [row | {FIRST: first[row["id"]]} for row in rows]
    return pd.DataFrame(rows).assign(**{name: metric.values().numpy() for name, metric in metrics.items()})


def _noting_first(cases: Iterable[EditCase], first: dict[str, str]) -> Iterator[EditCase]:
    """The cases; `first` receives the id of the first turn of each one's session."""
    for case in cases:
        first[case.id] = first.get(case.continues, case.id)
        yield case


def area_of(case: EditCase) -> str:
    """How much of the picture the true mask covers, as a group: `0 %`, `0-1 %`, `1-10 %`, `10-30 %`, `30-100 %`."""
    if case.truth_mask is None:
        return NO_MASK
    share = float((np.asarray(case.truth_mask.convert("L")) > 127).mean())
    if share == 0:
        return "0 %"
    low = sum(share >= border for border in AREAS)
    borders = [f"{border:.0%}".rstrip("%") for border in (0, *AREAS, 1)]
    return f"{borders[low]}-{borders[low + 1]} %"


def groups_of(rows: pd.DataFrame, groups: Iterable[str]) -> list[str]:
    """The groups that the tables show: those of the benchmark, and the area if any case has a mask."""
    return [*groups, *([AREA] if (rows[AREA] != NO_MASK).any() else [])]


def _take_last(metric: CaseMetric) -> list[dict[str, dict]]:
    """Remove what the last update added to a metric's states, and return it: per case {state: packed row}."""
    added = {state: getattr(metric, state).pop() for state in metric.states() if getattr(metric, state)}
    return [
        {state: _packed(tensor[i]) for state, tensor in added.items()} for i in range(len(next(iter(added.values()))))
    ]


def _put(metric: CaseMetric, rows: list[dict[str, dict]]) -> None:
    """Add rows to a metric's states, as an update with these cases would."""
    for state in rows[0]:
        getattr(metric, state).append(torch.stack([_unpacked(row[state]) for row in rows]))


def _packed(row: Tensor) -> dict:
    """A tensor as JSON, bit for bit."""
    array = row.cpu().numpy()
    return {"type": str(array.dtype), "shape": array.shape, "data": base64.b64encode(array.tobytes()).decode()}


def _unpacked(row: dict) -> Tensor:
    array = np.frombuffer(base64.b64decode(row["data"]), row["type"]).reshape(row["shape"])
    return torch.from_numpy(array.copy())


def summarise(rows: pd.DataFrame, metrics: Mapping[str, Measure], groups: Collection[str], headline: tuple) -> dict:
    """Means with 95 % bootstrap intervals, over all cases and by group.

    Metrics marked `headline` are averaged over the headline operations only, except in the table by operation.

    Returns:
        {"n", "failed", "other_size", "metrics": {name: {mean, low, high, n}}, "by": {group: {value: the same keys}}}
    """
    named = rows["operation"].isin(headline)

    def block(part: pd.DataFrame, every_operation: bool) -> dict:
        scores = {}
        for name, metric in metrics.items():
            column = part[name] if every_operation or not metric.headline else part.loc[named, name]
            if column.notna().any():
                scores[name] = interval(column.dropna().to_numpy())
        failed, other_size = (int(part[column].notna().sum()) for column in ("failed", "note"))
        return {"n": len(part), "failed": failed, "other_size": other_size, "metrics": scores}

    by = {
        group: {str(value): block(part, group == "operation") for value, part in rows.groupby(group)}
        for group in ("operation", *groups)
    }
    return block(rows, False) | {"by": by}


def interval(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean and 95 % bootstrap interval of at least one value, none NaN; a single value has no interval."""
    score = {"mean": float(values.mean()), "low": None, "high": None, "n": len(values)}
    if len(values) < 2:
        return score
    if np.ptp(values) == 0:
        return score | {"low": score["mean"], "high": score["mean"]}
    resampled = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    low, high = resampled.confidence_interval
    return score | {"low": float(low), "high": float(high)}
