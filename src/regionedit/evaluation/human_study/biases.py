"""Biases of raters: preference for a side, and different answers when the same page is shown again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from regionedit.evaluation.human_study.questions import POSITIONS
from regionedit.evaluation.human_study.sheets import NAMES


def wilson(count: int, total: int) -> dict:
    """A share with Wilson's 95 % interval: {share, low, high, count, n}; share, low and high are None if n is 0."""
    from statsmodels.stats.proportion import proportion_confint

    if not total:
        return {"share": None, "low": None, "high": None, "count": 0, "n": 0}
    low, high = proportion_confint(int(count), int(total), 0.05, "wilson")
    return {"share": float(count / total), "low": float(low), "high": float(high), "count": int(count), "n": int(total)}


def side_choices(asked: pd.DataFrame) -> dict:
    """Forced choice: `{question: {position: share}}`; `expected` is the share of an unbiased rater."""
    given = asked.dropna(subset="answer")
    width = int(asked["positions"].max())
    shares: dict[str, dict] = {}
    for name in NAMES:
        chosen = given.loc[given["question"] == name, "position"]
        by_position = {position: wilson((chosen == position).sum(), len(chosen)) for position in _reported(width)}
        shares[name] = {position: share | {"expected": 1 / width} for position, share in by_position.items()}
    return shares


def side_differences(asked: pd.DataFrame) -> dict:
    """Likert: `{question: {position: {difference, low, high, n}}}`, empty if one picture is shown at a time.

    The difference is the score at this position minus the mean score of the other pictures of its trial, after
    subtracting each system's mean score. n is the number of pages with an answer for every picture. The interval is
    Student's.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    width = int(asked["positions"].max())
    differences: dict[str, dict] = {name: {} for name in NAMES}
    for name in NAMES:
        part = asked[asked["question"] == name].dropna(subset="answer")
        answer = part["answer"].astype(float)
        left = part.assign(left=answer - answer.groupby(part["system"]).transform("mean"))
        pages = left.pivot(index=["rater", "trial"], columns="position", values="left").dropna()
        for position in _reported(width):
            if position not in pages or pages.shape[1] < width:
                differences[name][position] = {"difference": None, "low": None, "high": None, "n": 0}
                continue
            more = (pages[position] - pages.drop(columns=position).mean(axis=1)).to_numpy()
            low, high = map(float, DescrStatsW(more).tconfint_mean()) if len(more) > 1 else (None, None)
            difference = float(more.mean()) if len(more) else None
            differences[name][position] = {"difference": difference, "low": low, "high": high, "n": len(more)}
    return differences


def repeats(asked: pd.DataFrame) -> dict | None:
    """How often raters give the same answer when the same pictures are shown again in reverse order.

    `{question: {same, mean_difference, by_rater}}`: the share of equal answers (equal systems chosen), the mean
    absolute difference on the scale (likert only), and each rater's own share. None without repeats.
    """
    again = asked[asked["repeat_of"] != ""]
    if again.empty:
        return None
    likert = pd.api.types.is_numeric_dtype(asked["answer"])
    earlier = asked.drop(columns="repeat_of").rename(columns={"trial": "repeat_of"})
    both = ["rater", "repeat_of", "question"] + (["system"] if likert else [])
    pairs = again.dropna(subset="answer").merge(earlier.dropna(subset="answer"), on=both, suffixes=("", "_earlier"))
    same = pairs["answer"] == pairs["answer_earlier"] if likert else pairs["system"] == pairs["system_earlier"]
    found = {}
    for name in NAMES:
        here = pairs["question"] == name
        found[name] = {
            "same": wilson(same[here].sum(), here.sum()),
            "by_rater": {r: wilson(part.sum(), len(part)) for r, part in same[here].groupby(pairs.loc[here, "rater"])},
        }
        if likert:
            steps = (pairs.loc[here, "answer"] - pairs.loc[here, "answer_earlier"]).abs().astype(float)
            found[name]["mean_difference"] = float(np.mean(steps)) if len(steps) else None
    return found


def _reported(width: int) -> str:
    """The positions to report: of two positions the left one is enough, of one there is nothing to report."""
    return {1: "", 2: "A"}.get(width, POSITIONS[:width])
