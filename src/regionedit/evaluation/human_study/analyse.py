"""Computes scores, preferences, agreement and biases from key and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from regionedit.evaluation.human_study.agreement import Level, alpha, fleiss_kappa, resampled_interval, share
from regionedit.evaluation.human_study.sheets import NAMES, POSITIONS, SCALE, read_answers, read_key
from regionedit.evaluation.human_study.tables import markdown
from regionedit.evaluation.scoring import RESAMPLES
from regionedit.files import write_together


def analyse(key_path: str | Path, answer_paths: Sequence[str | Path], out: str | Path) -> dict:
    """Analyse a study and write analysis.json and analysis.md.

    Returns:
        The content of analysis.json; the functions below describe its parts. Undefined values are None.

    Raises:
        ValueError: see `read_key` and `read_answers`.
        OSError: `out` cannot be written.
    """
    key = read_key(key_path)
    answers = read_answers(answer_paths, key)
    design, seed = key["design"][0], int(key["seed"][0])
    questions = match(key, answers)
    first = questions[questions["repeat_of"] == ""]
    measure, sides = (scores, side_differences) if design == "likert" else (preferences, side_choices)
    analysis = {
        "study": key["trial"][0].split("-")[0],
        "design": design,
        "seed": seed,
        "raters": sorted(questions["rater"].unique()),
        "forms_without_answers": sorted({*key["rater"]} - {*questions["form"]}),
        "cases": first["case"].nunique(),
        "answers": len(answers),
        "missing": int(questions["answer"].isna().sum()),
        "resamples": RESAMPLES,
        **measure(first, np.random.default_rng(seed)),
        "sides": sides(first),
        "repeats": repeats(questions, design),
    }
    texts = {"analysis.json": json.dumps(analysis, indent=1, ensure_ascii=False), "analysis.md": markdown(analysis)}
    write_together(out, {name: text.encode() for name, text in texts.items()})
    return analysis


def match(key: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Every question on the forms of the raters who answered anything, with the answer or NaN.

    Columns: rater, form, trial, repeat_of, case, system_set (the systems shown together, sorted), positions (how many),
    question, answer, and position and system: of the rated picture (likert) or of the chosen one (forced choice).
    """
    pages = key.groupby("trial", sort=False, as_index=False).agg(
        form=("rater", "first"),
        case=("case", "first"),
        repeat_of=("repeat_of", "first"),
        system_set=("system", lambda systems: tuple(sorted(systems))),
        positions=("system", "size"),
    )
    raters = answers[["rater", "trial"]].merge(pages[["trial", "form"]])[["rater", "form"]].drop_duplicates()
    questions = raters.merge(pages, on="form").merge(pd.DataFrame({"question": NAMES}), how="cross")
    pictures = key[["trial", "position", "system"]]
    if key["design"][0] == "likert":
        shown = questions.merge(pictures, on="trial")
        return shown.merge(answers, how="left", on=["rater", "trial", "position", "question"])
    chosen = questions.merge(answers.drop(columns="position"), how="left", on=["rater", "trial", "question"])
    return chosen.assign(position=chosen["answer"]).merge(pictures, how="left", on=["trial", "position"])


def _by_question(rows: pd.DataFrame, measure: Callable[[pd.DataFrame], dict]) -> dict[str, dict]:
    return {name: measure(rows[rows["question"] == name]) for name in NAMES}


def scores(questions: pd.DataFrame, rng: np.random.Generator) -> dict:
    """Likert: the scores of each system and of all together, by question, and how far raters agree on them."""

    def score(rows: pd.DataFrame) -> dict:
        given = rows.dropna(subset="answer")
        values = given["answer"].astype(int)
        per_case = values.groupby(given["case"]).agg(["sum", "size"]).to_numpy()
        low, high = resampled_interval(per_case, lambda drawn: drawn[:, 0] / drawn[:, 1], rng)
        return {
            **_extent(rows, given),
            "mean": _defined(values.mean()),
            "low": low,
            "high": high,
            "sd": _defined(values.std()),
            "median": _defined(values.median()),
            # Raters see a picture next to others; next to different ones it is a separate unit of the same item.
            **_agreement(given, ["case", "system_set", "system"], "answer", SCALE, "ordinal", rng),
        }

    of_systems = {system: _by_question(part, score) for system, part in questions.groupby("system", sort=True)}
    return {"scores": of_systems, "scores_together": _by_question(questions, score)}


def preferences(questions: pd.DataFrame, rng: np.random.Generator) -> dict:
    """Forced choice: how often each system was preferred, and how far raters agree on it.

    For each set of systems shown together and each question; with several sets, also each system's share of the trials
    it appeared in.
    """
    system_sets = sorted(questions["system_set"].unique())
    blocks = []
    for system_set, name in product(system_sets, NAMES):
        rows = questions[(questions["system_set"] == system_set) & (questions["question"] == name)]
        given = rows.dropna(subset="answer")
        shares = {system: share(given["system"] == system) for system in system_set}
        block = {"systems": list(system_set), "question": name, **_extent(rows, given), "shares": shares}
        blocks.append(block | _agreement(given, ["case"], "system", system_set, "nominal", rng))
    overall = {}
    if len(system_sets) > 1:
        shown = questions.explode("system_set")  # a row for each system that was shown
        shown["won"] = (shown["system"] == shown["system_set"]).where(shown["answer"].notna())
        for system, part in shown.groupby("system_set"):
            overall[system] = _by_question(part, lambda rows: share(rows["won"].dropna().astype(bool)))
    return {"preferences": blocks, "preferences_overall": overall}


def _extent(rows: pd.DataFrame, given: pd.DataFrame) -> dict:
    numbers = {"raters": given["rater"].nunique(), "items": given["case"].nunique()}
    return numbers | {"answers": len(given), "missing": len(rows) - len(given)}


def _agreement(
    given: pd.DataFrame, unit: list[str], value: str, categories: Sequence, level: Level, rng: np.random.Generator
) -> dict:
    """Alpha and kappa of a column of ratings; units of the same case are one item."""
    counts = pd.get_dummies(pd.Categorical(given[value], categories), dtype=int)
    counts = counts.groupby([given[column].to_numpy() for column in unit], sort=False).sum()
    cases, counts_UC = counts.index.get_level_values(0), counts.to_numpy()
    return {"alpha": alpha(counts_UC, cases, level, rng), "fleiss_kappa": fleiss_kappa(counts_UC)}


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def side_choices(questions: pd.DataFrame) -> dict:
    """Forced choice: `{question: {position: share}}`; `expected` is the share of an unbiased rater."""
    width = questions["positions"].max()

    def choices(given: pd.DataFrame) -> dict:
        expected = {"expected": float(1 / width)}
        return {position: share(given["position"] == position) | expected for position in _reported(width)}

    return _by_question(questions.dropna(subset="answer"), choices)


def side_differences(questions: pd.DataFrame) -> dict:
    """Likert: `{question: {position: {difference, low, high, n}}}`, empty if one picture is shown at a time.

    The difference is the score at this position minus the mean score of the other pictures of its trial, after
    subtracting each system's mean score. n is the number of pages with an answer for every picture. The interval is
    Student's.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    width = questions["positions"].max()

    def differences(given: pd.DataFrame) -> dict:
        score = given["answer"].astype(float)
        given = given.assign(more=score - score.groupby(given["system"]).transform("mean"))
        pages = given.pivot(index=["rater", "trial"], columns="position", values="more")
        pages = pages.reindex(columns=[*POSITIONS[:width]]).dropna()
        found = {}
        for position in _reported(width):
            more = (pages[position] - pages.drop(columns=position).mean(axis=1)).to_numpy()
            low, high = map(float, DescrStatsW(more).tconfint_mean()) if len(more) > 1 else (None, None)
            mean = float(more.mean()) if len(more) else None
            found[position] = {"difference": mean, "low": low, "high": high, "n": len(more)}
        return found

    return _by_question(questions.dropna(subset="answer"), differences)


def _reported(width: int) -> str:
    """The positions to report: of two positions the left one is enough, of one there is nothing to report."""
    return {1: "", 2: "A"}.get(width, POSITIONS[:width])


def repeats(questions: pd.DataFrame, design: str) -> dict | None:
    """How often raters give the same answer when the same pictures are shown again in reverse order.

    `{question: {same, by_rater, mean_difference}}`: the share of equal answers (equal systems chosen), each rater's own
    share, and the mean absolute difference on the scale (likert only). None without repeats.
    """
    if not questions["repeat_of"].any():
        return None
    given = questions.dropna(subset="answer")
    earlier = given.drop(columns="repeat_of").rename(columns={"trial": "repeat_of"})
    shared, compared = (["system"], "answer") if design == "likert" else ([], "system")
    pairs = given.merge(earlier, on=["rater", "repeat_of", "question", *shared], suffixes=("", "_earlier"))

    def agreement(here: pd.DataFrame) -> dict:
        same = here[compared] == here[f"{compared}_earlier"]
        found = {"same": share(same), "by_rater": {rater: share(part) for rater, part in same.groupby(here["rater"])}}
        if design == "likert":
            found["mean_difference"] = _defined((here["answer"] - here["answer_earlier"]).abs().mean())
        return found

    return _by_question(pairs, agreement)
