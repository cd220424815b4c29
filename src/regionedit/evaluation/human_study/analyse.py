"""Computes scores, preferences, agreement and biases from key and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd
from numpy.random import Generator, default_rng
from rich.markdown import Markdown

from regionedit.evaluation import export
from regionedit.evaluation.human_study.agreement import alpha, fleiss_kappa, resampled_interval, share
from regionedit.evaluation.human_study.sheets import NAMES, POSITIONS, QUESTIONS, SCALE, read_answers, read_key
from regionedit.evaluation.scoring import RESAMPLES
from regionedit.evaluation.tables import TextTable, bracketed, terminal
from regionedit.files import write_together


@dataclass(frozen=True)
class AnalysisSettings:
    """`key.csv` of the study, the CSV files of the raters, and the folder for analysis.json and analysis.md."""

    key: str
    answers: list[str]
    out: str


def analyse(settings: AnalysisSettings) -> dict:
    """Write analysis.json and analysis.md; returns the content of the first, in which undefined values are None."""
    key = read_key(settings.key)
    answers = read_answers(settings.answers, key)
    design, seed = key["design"][0], int(key["seed"][0])
    questions = match(key, answers)
    first = questions[questions["repeat_of"] == ""]
    found = {
        "study": key["trial"][0].split("-")[0],
        "design": design,
        "seed": seed,
        "raters": sorted(questions["rater"].unique()),
        "forms_without_answers": sorted({*key["rater"]} - {*questions["form"]}),
        "cases": first["case"].nunique(),
        "answers": len(answers),
        "missing": int(questions["answer"].isna().sum()),
        "resamples": RESAMPLES,
        **(scores if design == "likert" else preferences)(first, default_rng(seed)),
        "sides": sides(first, design),
        "repeats": repeats(questions, design) if questions["repeat_of"].any() else None,
    }
    found = json.loads(json.dumps(found), parse_constant=lambda nan: None)
    texts = {"analysis.json": json.dumps(found, indent=1, ensure_ascii=False), "analysis.md": markdown(found)}
    write_together(settings.out, {name: text.encode() for name, text in texts.items()})
    terminal().print(Markdown(texts["analysis.md"]))
    return found


def match(key: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Every question on the forms of the raters who answered anything, with the answer or NaN.

    `system_set` are the systems shown together, `system` is that of the rated (likert) or the chosen picture.
    """
    pages = key.rename(columns={"rater": "form"}).groupby(["trial", "form", "case", "repeat_of"], sort=False)
    pages = pages.agg(system_set=("system", lambda systems: tuple(sorted(systems)))).reset_index()
    questions = answers.merge(pages)[["rater", "form"]].drop_duplicates().merge(pages)
    questions = questions.merge(pd.Series(NAMES, name="question"), how="cross")
    pictures = key[["trial", "position", "system"]]
    if key["design"][0] == "likert":
        return questions.merge(pictures).merge(answers, how="left")
    return questions.merge(answers, how="left").merge(pictures, how="left")


def _by_question(rows: pd.DataFrame, measure: Callable[[pd.DataFrame], dict]) -> dict[str, dict]:
    return {name: measure(rows[rows["question"] == name]) for name in NAMES}


def _rated(rows: pd.DataFrame, found: dict, unit: list[str], value: str, values: Sequence, rng: Generator) -> dict:
    """How many answers there are, what was `found`, and how far the answers agree; units of a case are one item."""
    given = rows.dropna(subset="answer")
    numbers = {"raters": given["rater"].nunique(), "items": given["case"].nunique()}
    numbers |= {"answers": len(given), "missing": len(rows) - len(given)}
    counts = pd.get_dummies(pd.Categorical(given[value], values), dtype=int)
    counts = counts.groupby([given[column].to_numpy() for column in unit], sort=False).sum()
    cases, counts_UC = counts.index.get_level_values(0), counts.to_numpy()
    level = "ordinal" if value == "answer" else "nominal"
    return numbers | found | {"alpha": alpha(counts_UC, cases, level, rng), "fleiss_kappa": fleiss_kappa(counts_UC)}


def scores(questions: pd.DataFrame, rng: Generator) -> dict:
    """Likert: the scores of each system and of all together, by question, and how far raters agree on them."""

    def score(rows: pd.DataFrame) -> dict:
        given = rows.dropna(subset="answer").astype({"answer": int})
        answers, per_case = given["answer"], given.groupby("case")["answer"].agg(["sum", "size"]).to_numpy()
        low, high = resampled_interval(per_case, lambda drawn: drawn[:, 0] / drawn[:, 1], rng)
        found = {"mean": answers.mean(), "low": low, "high": high, "sd": answers.std(), "median": answers.median()}
        # Raters see a picture next to others; next to different ones it is a separate unit of the same item.
        return _rated(rows, found, ["case", "system_set", "system"], "answer", SCALE, rng)

    of_systems = {system: _by_question(part, score) for system, part in questions.groupby("system")}
    return {"scores": of_systems, "scores_together": _by_question(questions, score)}


def preferences(questions: pd.DataFrame, rng: Generator) -> dict:
    """Forced choice: how often each system was preferred, in each set shown together and (of several sets) in all."""
    blocks = []
    for (system_set, shown), name in product(questions.groupby("system_set"), NAMES):
        rows = shown[shown["question"] == name]
        chosen = rows["system"].dropna()
        shares = {"shares": {system: share(chosen == system) for system in system_set}}
        rated = _rated(rows, shares, ["case"], "system", system_set, rng)
        blocks.append({"systems": list(system_set), "question": name, **rated})
    shown = questions.dropna(subset="answer").explode("system_set")  # a row for each system that was shown
    won = shown.assign(won=shown["system"] == shown["system_set"]).groupby("system_set")
    overall = {system: _by_question(part, lambda rows: share(rows["won"])) for system, part in won}
    return {"preferences": blocks, "preferences_overall": overall if questions["system_set"].nunique() > 1 else {}}


def sides(questions: pd.DataFrame, design: str) -> dict:
    """How much a position is favoured: `{question: {position: ...}}`; of two positions, only the left one.

    Forced choice: the share of answers for this position; `expected` is that of an unbiased rater. Likert: difference,
    the score here minus the mean score of the other pictures of its trial, after subtracting each system's mean score;
    n is the number of pages with an answer for every picture. The interval is Student's.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    width = len(questions["system_set"].iloc[0])

    def favoured(given: pd.DataFrame, position: str) -> dict:
        if design != "likert":
            return share(given["position"] == position) | {"expected": 1 / width}
        score = given["answer"].astype(float)
        given = given.assign(more=score - score.groupby(given["system"]).transform("mean"))
        pages = given.pivot(index=["rater", "trial"], columns="position", values="more")
        pages = pages.reindex(columns=[*POSITIONS[:width]]).dropna()
        more = (pages[position] - pages.drop(columns=position).mean(axis=1)).to_numpy()
        low, high = DescrStatsW(more).tconfint_mean() if len(more) > 1 else (None, None)
        return {"difference": more.mean() if len(more) else None, "low": low, "high": high, "n": len(more)}

    shown = POSITIONS[: width if width > 2 else width - 1]
    return _by_question(questions.dropna(subset="answer"), lambda given: {at: favoured(given, at) for at in shown})


def repeats(questions: pd.DataFrame, design: str) -> dict:
    """The share of equal answers (equal systems chosen) to repeated trials, of all and of each rater, by question."""
    compared, same = ("answer", ["system"]) if design == "likert" else ("system", [])
    given = questions.dropna(subset="answer")
    earlier = given.drop(columns="repeat_of").rename(columns={"trial": "repeat_of", compared: "earlier"})
    pairs = given.merge(earlier, on=["rater", "repeat_of", "question", *same], suffixes=("", "_of_earlier"))

    def agreement(here: pd.DataFrame) -> dict:
        equal = here[compared] == here["earlier"]
        found = {"same": share(equal), "by_rater": {name: share(part) for name, part in equal.groupby(here["rater"])}}
        differs = {"mean_difference": (here[compared] - here["earlier"]).abs().mean()} if design == "likert" else {}
        return found | differs

    return _by_question(pairs, agreement)


def markdown(analysis: dict) -> str:
    """The tables of an analysis: every number of analysis.json, with its interval in brackets."""
    scored = {**analysis.get("scores", {}), "all together": analysis.get("scores_together", {})}
    overall, again = analysis.get("preferences_overall", {}), analysis["repeats"] or {}
    preferred = [
        (", ".join(block["systems"]), {name: {"question": ""} | part | block})
        for block in analysis.get("preferences", ())
        for name, part in block["shares"].items()
    ]
    repeated = [(question, {"all": found["same"] | found, **found["by_rater"]}) for question, found in again.items()]
    tables = [
        _table("Scores, 1 to 5", ("system", "question"), scored.items()),
        _table("Preferences", ("shown", "preferred"), preferred),
        _table("Preferences, all opponents", ("preferred", "question"), overall.items()),
        _table("Sides, A is the leftmost picture", ("question", "position"), analysis["sides"].items()),
        _table("Repeated trials, share of equal answers", ("question", "rater"), repeated),
    ]
    head = {name: value for name, value in analysis.items() if name != "preferences" and not isinstance(value, dict)}
    head |= {question["name"]: question["text"] for question in QUESTIONS}
    head |= {"brackets": "95 % intervals", "alpha": "Krippendorff's; from .80 on reliable, from .667 on tentative"}
    lines = "".join(f"- {name}: {value}\n" for name, value in head.items())
    return f"# Human study\n\n{lines}\n{export.markdown([table for table in tables if table.rows])}"


def _table(title: str, names: tuple[str, str], parts: Iterable[tuple[str, dict[str, dict]]]) -> TextTable:
    """A row for each block of numbers."""
    rows = []
    for outer, inner, block in ((outer, *item) for outer, blocks in parts for item in blocks.items()):
        rows.append(dict(zip(names, (outer, inner), strict=True)))
        for name, value in block.items():
            low, high = (block["low"], block["high"]) if name in ("mean", "difference", "share") else (None, None)
            if name in ("alpha", "fleiss_kappa"):
                value, low, high = value["value"], value.get("low"), value.get("high")
            if name not in ("low", "high") and not isinstance(value, list | dict):
                rows[-1][name] = str(value) if isinstance(value, int | str) else bracketed(value, low, high, 2)
    frame = pd.DataFrame(rows).fillna("")
    return TextTable(title, "", tuple(frame), tuple(frame.itertuples(index=False, name=None)))
