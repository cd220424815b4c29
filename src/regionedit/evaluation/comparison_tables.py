"""The tables of a comparison: the systems in rows, published rows, differences between systems on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from regionedit.evaluation import METRICS
from regionedit.evaluation.finished_evaluations import Evaluation, IncomparableError
from regionedit.evaluation.published import PublishedRow
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.tables import TextTable, bracketed, score_cell

PICK_SCORE = "pick_score"
CLEAR = "†"  # marks cells of the comparison table that clearly differ from the named row's
ARROWS = {True: " ↑", False: " ↓", None: ""}  # by whether a higher value is better
# Cases that a clear difference needs: with 5, not even five differences of one sign are significant at 5 % in an exact
# sign test, but their bootstrap interval always excludes 0.
FEWEST = 6


@dataclass(frozen=True)
class Row:
    """One row of the comparison.

    Args:
        name: the system.
        kind: measured, identity (the unedited source), oracle (edited in the true region) or published.
        scores: column -> {mean, low, high, n}; a published row has only the mean.
        n, failed: numbers of cases, None if unknown.
        source: paper and table of a published row.
        note: a remark for the reader.
        clear: columns in which it clearly differs from the named row; see `Difference.clear`.
    """

    name: str
    kind: str
    scores: dict[str, dict]
    n: int | None = None
    failed: int | None = None
    source: str = ""
    note: str = ""
    clear: frozenset[str] = frozenset()

    @property
    def figures(self) -> dict[str, float]:
        """Column -> mean."""
        return {title: score["mean"] for title, score in self.scores.items()}


@dataclass(frozen=True)
class Difference:
    """One column of two systems, on the cases that both have a value for.

    Args:
        one, other: names of the systems.
        title: the column.
        score: mean, low, high and n of `one` minus `other`; None without such a case.
    """

    one: str
    other: str
    title: str
    score: dict | None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0, with at least FEWEST cases."""
        if self.score is None or self.score["n"] < FEWEST:
            return False
        return self.score["low"] > 0 or self.score["high"] < 0


def numbers(rows: Sequence[Row], columns: Mapping[str, str]) -> pd.DataFrame:
    """A row per system with each column's mean, low, high and n, in full precision."""
    table = []
    for row in rows:
        facts = {"system": row.name, "kind": row.kind, "n": row.n, "failed": row.failed}
        for title in columns:
            score = row.scores.get(title, {})
            facts[title] = score.get("mean")
            facts |= {f"{title} {key}": score.get(key) for key in ("low", "high", "n")}
        table.append(facts | {"source": row.source, "note": row.note})
    counts = ["n", "failed", *(f"{title} n" for title in columns)]
    return pd.DataFrame(table).astype(dict.fromkeys(counts, "Int64"))


def main_table(title: str, rows: Sequence[Row], columns: Mapping[str, str], notes: Sequence[str]) -> TextTable:
    """The comparison table: measured systems, then the unedited source and the oracles, then published rows."""
    decimals = {t: _decimals([row.scores[t]["mean"] for row in rows if t in row.scores]) for t in columns}
    marks = {source: f"[{k}]" for k, source in enumerate(dict.fromkeys(r.source for r in rows if r.source), 1)}
    places = {source: _places([row.figures for row in rows if row.source == source]) for source in marks}
    notes = [*notes, "± half the width of the 95 % bootstrap interval over cases"]
    notes += [f"{mark} quoted, not measured here: {source}" for source, mark in marks.items()]
    notes += [f"{marks[row.source]} {row.name}: {row.note}" for row in rows if row.note]
    cells = tuple(
        (
            f"{row.name} {marks[row.source]}" if row.source else row.name,
            *("" if count is None else str(count) for count in (row.n, row.failed)),
            *(
                score_cell(row.scores.get(t), digits=(places.get(row.source) or decimals).get(t, 0))
                + (f" {CLEAR}" if t in row.clear else "")
                for t in columns
            ),
        )
        for row in rows
    )
    sections = ["bound" if row.kind in ("identity", "oracle") else row.kind for row in rows]
    rules = frozenset(k for k in range(1, len(rows)) if sections[k] != sections[k - 1])
    titles = (f"{column}{ARROWS[METRICS[metric].higher_is_better]}" for column, metric in columns.items())
    heads = ("system", "n", "failed", *titles)
    return TextTable(title, "\n".join(notes), heads, cells, _best(rows, columns), rules)


def quoted_tables(rows: Sequence[PublishedRow]) -> list[TextTable]:
    """Published results of other protocols: a table for each source, with its own column titles."""
    tables = []
    for source, protocol in dict.fromkeys((row.cited, row.protocol) for row in rows):
        of_source = [row for row in rows if (row.cited, row.protocol) == (source, protocol)]
        places = _places([row.figures for row in of_source])
        cells = tuple(
            (row.method, *(f"{row.figures[t]:.{places[t]}f}" if t in row.figures else "" for t in places))
            for row in of_source
        )
        notes = ["quoted, not measured here", *dict.fromkeys(row.table_note for row in of_source)]
        notes += [f"{row.method}: {row.remark}" for row in of_source if row.remark]
        title = f"Other protocol ({protocol}), not comparable: {source}"
        tables.append(TextTable(title, "\n".join(filter(None, notes)), ("method", *places), cells))
    return tables


def pick_scores(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Raw PickScores of the cases that every system has a score for: a row per case, a column per system.

    Raises:
        IncomparableError: the systems were not scored on the same cases.
    """
    raw = {e.name: e.values(PICK_SCORE) for e in evaluations}
    first = evaluations[0]
    for other in evaluations[1:]:
        if lacking := len(first.rows.index.symmetric_difference(other.rows.index)):
            line = f"pick_score: its soft-max over systems needs the same cases; {lacking} are in only one of"
            raise IncomparableError([f"{line} {first.name} and {other.name}"])
    return pd.DataFrame(raw).dropna()


def soft_max(raw: pd.DataFrame) -> pd.DataFrame:
    """The probability that each system's picture is the preferred one, case by case; each row adds up to 1.

    Kirstain et al., Pick-a-Pic (2023): soft-max of the scores over all pictures made for one prompt. The value depends
    on which systems are compared; chance is one over their number.
    """
    return pd.DataFrame(softmax(raw.to_numpy(), axis=1), raw.index, raw.columns)


def preference_table(raw: pd.DataFrame) -> TextTable:
    """For each pair of systems: the share of cases that the first wins (a tie counts half), and the mean soft-max."""
    rows = []
    for one, other in combinations(raw.columns, 2):
        lead = (raw[one] - raw[other]).to_numpy()
        both = interval(np.where(lead == 0, 0.5, lead > 0).astype(float)), interval(expit(lead))
        cells = [bracketed(score["mean"], score["low"], score["high"], 4) for score in both]
        rows.append((f"{one} over {other}", str(len(raw)), *cells))
    note = "Share of cases with the higher raw score, and the mean soft-max over the two systems; 0.5 is a draw."
    return TextTable("PickScore, pairs", note, ("pair", "n", "wins", "preferred"), tuple(rows))


def paired_differences(
    evaluations: Sequence[Evaluation], columns: Mapping[str, str], against: str | None = None
) -> list[Difference]:
    """The differences between every two systems, or between every other system and the one named `against`.

    The interval is over resampled cases, so a case that is hard for both systems does not widen it.

    Raises:
        ValueError: there is only one evaluation, none is named `against`, or the rows of one were not kept.
    """
    if len(evaluations) < 2:
        raise ValueError("paired: differences need at least two evaluations")
    pairs = [*combinations(evaluations, 2)]
    if against is not None:
        named = [e for e in evaluations if e.name == against]
        if not named:
            raise ValueError(f"against: no {against!r} here; there are: {', '.join(e.name for e in evaluations)}")
        pairs = [(e, named[0]) for e in evaluations if e.name != against]
    found = []
    for one, other in pairs:
        for title, metric in columns.items():
            both = pd.concat([one.values(metric), other.values(metric)], axis=1, join="inner")
            score = None if both.empty else interval((both.iloc[:, 0] - both.iloc[:, 1]).to_numpy())
            found.append(Difference(one.name, other.name, title, score))
    return found


def paired_table(differences: Sequence[Difference]) -> TextTable:
    """A row for each difference; clear ones are bold."""
    rows, rules = [], set()
    for number, d in enumerate(differences):
        if (d.one, d.other) != (differences[number - 1].one, differences[number - 1].other):
            rules.add(number)
        cells = ("0", "", "")
        if d.score is not None:
            bounds = "" if d.score["low"] is None else f"[{d.score['low']:+.4f}, {d.score['high']:+.4f}]"
            cells = (str(d.score["n"]), f"{d.score['mean']:+.4f}", bounds)
        rows.append((f"{d.one} − {d.other}", d.title, *cells))
    note = (
        "mean difference on the n cases in both, 95 % bootstrap interval over cases; bold if it excludes 0 and n is at"
    )
    note += f" least {FEWEST}"
    heads = ("pair", "column", "n", "difference", "interval")
    clear = frozenset((number, 3) for number, d in enumerate(differences) if d.clear)
    return TextTable("Paired differences", note, heads, tuple(rows), clear, frozenset(rules - {0}))


def _best(rows: Sequence[Row], columns: Mapping[str, str]) -> frozenset[tuple[int, int]]:
    """The cells of the best measured system in each column; the unedited source and the oracles do not compete."""
    best: set[tuple[int, int]] = set()
    for place, (title, metric) in enumerate(columns.items(), 3):
        higher = METRICS[metric].higher_is_better
        values = {k: r.scores[title]["mean"] for k, r in enumerate(rows) if r.kind == "measured" and title in r.scores}
        if len(values) > 1 and higher is not None:
            top = max(values.values()) if higher else min(values.values())
            best |= {(k, place) for k, value in values.items() if value == top}
    return frozenset(best)


def _decimals(values: Sequence[float]) -> int:
    """Decimal places as papers print them: 2 for PSNR (27.22), 4 for CLIP (0.2742), 5 if all values are small."""
    largest = max((abs(value) for value in values), default=0)
    return 2 if largest > 1.5 else 4 if largest >= 0.03 else 5


def _places(rows: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """The decimal places of a published table's columns, so that no digits are added."""
    places: dict[str, int] = {}
    for figures in rows:
        for title, figure in figures.items():
            exponent = Decimal(str(round(figure, 9))).as_tuple().exponent
            places[title] = max(places.get(title, 0), -exponent)
    return places
