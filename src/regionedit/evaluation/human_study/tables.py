"""The summary and tables of a study, for the terminal and for analysis.md."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from regionedit.evaluation import export
from regionedit.evaluation.human_study.sheets import QUESTIONS
from regionedit.evaluation.tables import TextTable, bracketed, print_table

LISTED = 10  # excluded cases that the terminal lists
AGREEMENT = (
    "Answers: how many of the questions were answered. Alpha is Krippendorff's ({}), with an interval over resampled "
    "cases; ** reliable (from .80), * tentative (from .667). Kappa is Fleiss'."
)


def markdown(analysis: dict) -> str:
    """The text of analysis.md."""
    questions = "\n".join(f"- {question['name']}: {question['text']}" for question in QUESTIONS)
    head = f"# Human study {analysis['study']}\n\n{_summary(analysis)}\n\n{questions}\n\n"
    return head + export.markdown(_tables(analysis))


def print_analysis(analysis: dict, out: str | Path) -> None:
    """Print the tables of analysis.md."""
    console = Console()
    console.print(_summary(analysis), highlight=False)
    for table in _tables(analysis):
        print_table(table, console)
    print(f"{out}: analysis.md, analysis.json")


def print_study(record: dict, out: str | Path) -> None:
    """Print what was made and which cases were left out."""
    repeated = f" and {record['repeats']} of them again" if record["repeats"] else ""
    print(
        f"{out}: {record['raters']} forms of {record['trials']} trials{repeated}; {len(record['cases'])} cases, "
        f"{len(record['systems'])} systems, {record['design']}, {record['shown']}, seed {record['seed']}"
    )
    if record["left_out"]:
        print(f"{len(record['left_out'])} cases left out because a system has no picture of them (all in study.json):")
        for case_id, reason in [*record["left_out"].items()][:LISTED]:
            print(f"  {case_id}: {reason}")
    for name, ids in record["resized"].items():
        print(f"{name}: {len(ids)} pictures had another size than their source and were resized (see study.json)")
    if record["raters_per_trial"] < 2:
        print("each trial has fewer than two raters: agreement cannot be measured")
    print("Send each rater one form. Keep key.csv to yourself until all answers are in.")


def _summary(analysis: dict) -> str:
    forms = ", ".join(analysis["forms_without_answers"])
    unused = f"no answers from forms {forms}; " if forms else ""
    return (
        f"{analysis['design']}; {len(analysis['raters'])} raters; {unused}"
        f"{analysis['cases']} cases; {analysis['answers']} answers, {analysis['missing']} missing; "
        f"seed {analysis['seed']}. Brackets are 95 % intervals."
    )


def _tables(analysis: dict) -> list[TextTable]:
    own = (_scores,) if analysis["design"] == "likert" else (_preferences, _overall)
    return [table for make in (*own, _sides, _repeats) if (table := make(analysis)).rows]


def _scores(analysis: dict) -> TextTable:
    rows = tuple(
        (system, name, *_extent(score), _interval("mean", score), _number(score["sd"]))
        + (_number(score["median"], 1), *_agreement(score))
        for system, by_question in [*analysis["scores"].items(), ("all together", analysis["scores_together"])]
        for name, score in by_question.items()
    )
    heads = ("system", "question", "raters", "items", "answers", "mean", "SD", "median", "alpha", "kappa")
    return TextTable("Scores, 1 to 5", AGREEMENT.format("ordinal"), heads, rows, names=2)


def _preferences(analysis: dict) -> TextTable:
    rows = []
    for block in analysis["preferences"]:
        rest = (*_extent(block), *_agreement(block))
        for system, share in block["shares"].items():
            others = ", ".join(name for name in block["systems"] if name != system)
            rows.append((block["question"], system, others, _share(share), *rest))
            rest = ("",) * len(rest)
    note = "Intervals of shares are Wilson's and treat a rater's answers as independent. " + AGREEMENT.format("nominal")
    heads = ("question", "system", "against", "preferred", "raters", "items", "answers", "alpha", "kappa")
    return TextTable("Preferences", note, heads, tuple(rows), names=2)


def _overall(analysis: dict) -> TextTable:
    rows = tuple(
        (system, name, _share(share), str(share["n"]))
        for system, by_question in analysis["preferences_overall"].items()
        for name, share in by_question.items()
    )
    note = "Share of a system's trials in which it was preferred."
    return TextTable("Preferences, all opponents", note, ("system", "question", "preferred", "answers"), rows, names=2)


def _sides(analysis: dict) -> TextTable:
    likert = analysis["design"] == "likert"
    rows = []
    for name, by_position in analysis["sides"].items():
        for position, side in by_position.items():
            value = _interval("difference", side) if likert else _share(side)
            unbiased = 0.0 if likert else side["expected"]
            biased = side["low"] is not None and not side["low"] <= unbiased <= side["high"]
            verdict = "biased" if biased else "no sign of bias"
            rows.append((name, position, value, _number(unbiased), str(side["n"]), verdict))
    scored = "How much higher the picture there is scored than the others of its trial."
    note = f"A is the leftmost picture. {scored if likert else 'How often the picture there was preferred.'}"
    heads = ("question", "position", "difference" if likert else "share", "unbiased", "n", "")
    return TextTable("Sides", note, heads, tuple(rows), names=2)


def _repeats(analysis: dict) -> TextTable:
    likert = analysis["design"] == "likert"
    rows = []
    for name, found in (analysis["repeats"] or {}).items():
        worst = min(found["by_rater"].items(), key=lambda item: item[1]["share"], default=None)
        least = f"{worst[0]}: {worst[1]['count']} of {worst[1]['n']}" if worst else ""
        steps = (_number(found["mean_difference"]),) if likert else ()
        rows.append((name, _share(found["same"]), *steps, str(found["same"]["n"]), least))
    heads = ("question", "same answer", *(("mean difference",) if likert else ()), "n", "least consistent rater")
    return TextTable("Repeated trials", "The same pictures, shown again in reverse order.", heads, tuple(rows))


def _extent(block: dict) -> tuple[str, ...]:
    questions = block["answers"] + block["missing"]
    return str(block["raters"]), str(block["items"]), f"{block['answers']} of {questions}"


def _agreement(block: dict) -> tuple[str, str]:
    alpha = block["alpha"]["value"]
    stars = "" if alpha is None or alpha < 0.667 else "*" if alpha < 0.8 else "**"
    return _interval("value", block["alpha"]) + stars, _number(block["fleiss_kappa"]["value"])


def _number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _interval(name: str, of: dict) -> str:
    return bracketed(of[name], of["low"], of["high"], 2)


def _share(share: dict) -> str:
    return f"{share['share']:.0%} [{share['low']:.0%}, {share['high']:.0%}]" if share["n"] else "undefined"
