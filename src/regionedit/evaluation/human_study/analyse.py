"""Computes scores, preferences and agreement from key and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regionedit.evaluation.human_study.agreement import (
    RESAMPLES,
    Level,
    alpha_interval,
    count_ratings,
    fleiss_kappa,
    krippendorff_alpha,
    percentiles,
)
from regionedit.evaluation.human_study.biases import repeats, side_choices, side_differences, wilson
from regionedit.evaluation.human_study.questions import SCALE
from regionedit.evaluation.human_study.sheets import NAMES, read_answers, read_key
from regionedit.evaluation.human_study.tables import markdown
from regionedit.files import write_together


def analyse(key_path: str | Path, answer_paths: Sequence[str | Path], out: str | Path) -> dict:
    """Analyse a study and write analysis.json and analysis.md.

    Returns:
        The content of analysis.json. `scores` (likert): `{system: {question: ...}}`; `scores_together`: over all
        systems. `preferences` (forced choice): shares and agreement for each set of systems shown together and each
        question; `preferences_overall`: each system's share of the trials it appeared in, if there are several sets.
        `sides`: left-right bias. `repeats`: how far raters agree with themselves, None without repeats. Intervals are
        95 %; undefined values are None.

    Raises:
        ValueError: see `read_key` and `read_answers`.
        OSError: `out` cannot be written.
    """
    key = read_key(key_path)
    answers = read_answers(answer_paths, key)
    likert, seed = key["design"][0] == "likert", int(key["seed"][0])
    asked = match(key, answers)
    first = asked[asked["repeat_of"] == ""]
    rng = np.random.default_rng(seed)
    analysis = {
        "study": key["trial"][0].split("-")[0],
        "design": key["design"][0],
        "seed": seed,
        "raters": sorted(asked["rater"].unique()),
        "forms_without_answers": sorted({*key["rater"]} - {*asked["form"]}),
        "cases": first["case"].nunique(),
        "answers": len(answers),
        "missing": int(asked["answer"].isna().sum()),
        "resamples": RESAMPLES,
        **(scores(first, rng) if likert else preferences(first, rng)),
        "sides": side_differences(first) if likert else side_choices(first),
        "repeats": repeats(asked),
    }
    texts = {"analysis.json": json.dumps(analysis, indent=1, ensure_ascii=False), "analysis.md": markdown(analysis)}
    write_together(out, {name: text.encode() for name, text in texts.items()})
    return analysis


def match(key: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Every question on the forms of the raters who answered anything, with the answer or NaN.

    Columns: rater, form, trial, repeat_of, case, company (the systems shown, sorted), positions (how many), question,
    answer, and position and system: of the rated picture (likert) or of the chosen one (forced choice).
    """
    likert = key["design"][0] == "likert"
    pages = key.groupby("trial", sort=False).agg(
        form=("rater", "first"),
        case=("case", "first"),
        repeat_of=("repeat_of", "first"),
        company=("system", lambda systems: tuple(sorted(systems))),
        positions=("system", "size"),
    )
    pages = pages.reset_index()
    raters = answers[["rater", "trial"]].merge(pages[["trial", "form"]])[["rater", "form"]].drop_duplicates()
    asked = raters.merge(pages, on="form").merge(pd.DataFrame({"question": NAMES}), how="cross")
    pictures = key[["trial", "position", "system"]]
    if likert:
        return asked.merge(pictures, on="trial").merge(
            answers, how="left", on=["rater", "trial", "position", "question"]
        )
    asked = asked.merge(answers.drop(columns="position"), how="left", on=["rater", "trial", "question"])
    return asked.assign(position=asked["answer"]).merge(pictures, how="left", on=["trial", "position"])


def scores(asked: pd.DataFrame, rng: np.random.Generator) -> dict:
    """Likert: the scores of each system, and how far raters agree on them."""

    def by_question(part: pd.DataFrame) -> dict:
        return {name: _score(part[part["question"] == name], rng) for name in NAMES}

    return {
        "scores": {system: by_question(part) for system, part in asked.groupby("system", sort=True)},
        "scores_together": by_question(asked),
    }


def _score(asked: pd.DataFrame, rng: np.random.Generator) -> dict:
    given = asked.dropna(subset="answer")
    values = given["answer"].astype(int)
    low, high = _mean_interval(values, given["case"], rng)
    return {
        **_extent(asked, given),
        "mean": float(values.mean()) if len(values) else None,
        "low": low,
        "high": high,
        "sd": float(values.std()) if len(values) > 1 else None,
        "median": float(values.median()) if len(values) else None,
        # Raters see a picture beside others, so the same picture in another company is another unit of the same item.
        **_agreement(
            given, [*zip(given["case"], given["company"], given["system"], strict=True)], values, SCALE, "ordinal", rng
        ),
    }


def preferences(asked: pd.DataFrame, rng: np.random.Generator) -> dict:
    """Forced choice: how often each system was preferred, and how far raters agree on it."""
    blocks = []
    for company, part in asked.groupby("company", sort=True):
        for name in NAMES:
            posed = part[part["question"] == name]
            given = posed.dropna(subset="answer")
            blocks.append(
                {
                    "systems": list(company),
                    "question": name,
                    **_extent(posed, given),
                    "shares": {system: wilson((given["system"] == system).sum(), len(given)) for system in company},
                    **_agreement(given, [(case,) for case in given["case"]], given["system"], company, "nominal", rng),
                }
            )
    overall = {}
    if asked["company"].nunique() > 1:
        answered = asked.dropna(subset="answer")
        for system in sorted({system for company in asked["company"] for system in company}):
            shown = answered[[system in company for company in answered["company"]]]
            by_question = {name: shown[shown["question"] == name] for name in NAMES}
            overall[system] = {
                n: wilson((part["system"] == system).sum(), len(part)) for n, part in by_question.items()
            }
    return {"preferences": blocks, "preferences_overall": overall}


def _extent(asked: pd.DataFrame, given: pd.DataFrame) -> dict:
    return {
        "raters": given["rater"].nunique(),
        "items": given["case"].nunique(),
        "answers": len(given),
        "missing": len(asked) - len(given),
    }


def _agreement(
    given: pd.DataFrame,
    units: list[tuple],
    values: pd.Series,
    categories: Sequence,
    level: Level,
    rng: np.random.Generator,
) -> dict:
    """Alpha with its interval, and kappa; the first element of a unit is its item."""
    ratings = [*zip(given["rater"], units, values, strict=True)]
    names, counts_UC = count_ratings(ratings, categories)
    low, high = alpha_interval(counts_UC, [unit[0] for unit in names], level, rng)
    kappa, kappa_units, kappa_ratings = fleiss_kappa(counts_UC)
    return {
        "alpha": {"level": level, "value": krippendorff_alpha(ratings, categories, level), "low": low, "high": high},
        "fleiss_kappa": {"value": kappa, "units": kappa_units, "ratings": kappa_ratings},
    }


def _mean_interval(values: pd.Series, items: pd.Series, rng: np.random.Generator) -> tuple[float | None, float | None]:
    """95 % percentile interval of the mean over resampled items."""
    per_item = values.groupby(items.to_numpy()).agg(["sum", "size"]).to_numpy()
    if len(per_item) < 2:
        return None, None
    draws_RI = rng.multinomial(len(per_item), np.full(len(per_item), 1 / len(per_item)), RESAMPLES)
    sums, sizes = (draws_RI @ per_item).T
    return percentiles(sums / sizes)
