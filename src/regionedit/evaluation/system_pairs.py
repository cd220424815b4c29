"""Scores between systems: the soft-max of PickScore, the share of wins, differences on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from regionedit.evaluation.comparability import Evaluation, IncomparableError
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.tables import TextTable

PICK_SCORE = "pick_score"


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
        wins = interval(np.where(lead == 0, 0.5, lead > 0).astype(float))
        preferred = interval(expit(lead))
        rows.append((f"{one} over {other}", str(len(raw)), _with_interval(wins), _with_interval(preferred)))
    note = "Share of cases with the higher raw score, and the mean soft-max over the two systems; 0.5 is a draw."
    return TextTable("PickScore, pairs", note, ("pair", "n", "wins", "preferred"), tuple(rows))


def paired_table(evaluations: Sequence[Evaluation], columns: Mapping[str, str]) -> TextTable:
    """For each pair of systems: the mean difference, first minus second, on the cases that both have a value for.

    The interval is over resampled cases, so a case that is hard for both systems does not widen it. Differences whose
    interval excludes 0 are bold.

    Raises:
        ValueError: there is only one evaluation, or the rows of one were not kept.
    """
    if len(evaluations) < 2:
        raise ValueError("paired: differences need at least two evaluations")
    rows, clear, rules = [], set(), set()
    for one, other in combinations(evaluations, 2):
        rules.add(len(rows))
        for title, metric in columns.items():
            both = pd.concat([one.values(metric), other.values(metric)], axis=1, join="inner")
            if both.empty:
                rows.append((f"{one.name} − {other.name}", title, "0", "", ""))
                continue
            score = interval((both.iloc[:, 0] - both.iloc[:, 1]).to_numpy())
            bounds = score["low"], score["high"]
            if None not in bounds and (bounds[0] > 0 or bounds[1] < 0):
                clear.add((len(rows), 3))
            shown = "" if None in bounds else f"[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"
            rows.append((f"{one.name} − {other.name}", title, str(len(both)), f"{score['mean']:+.4f}", shown))
    note = "mean difference on the n cases in both, 95 % bootstrap interval over cases; bold if it excludes 0"
    heads = ("pair", "column", "n", "difference", "interval")
    return TextTable("Paired differences", note, heads, tuple(rows), frozenset(clear), frozenset(rules - {0}))


def _with_interval(score: dict) -> str:
    mean = f"{score['mean']:.4f}"
    return mean if score["low"] is None else f"{mean} [{score['low']:.4f}, {score['high']:.4f}]"
