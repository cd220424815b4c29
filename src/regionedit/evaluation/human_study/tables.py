"""The summary and tables of a study, for the terminal and for analysis.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regionedit.evaluation.human_study.questions import QUESTIONS

LISTED = 10  # excluded cases that the terminal lists


@dataclass(frozen=True)
class _Table:
    title: str
    note: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def markdown(analysis: dict) -> str:
    """The text of analysis.md."""
    parts = [f"# Human study {analysis['study']}", _summary(analysis)]
    parts += [f"- {question.name}: {question.text}" for question in QUESTIONS]
    for table in _tables(analysis):
        rows = (table.heads, ("---",) * len(table.heads), *table.rows)
        lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
        parts += [f"\n## {table.title}", *([f"\n{table.note}"] if table.note else []), "", *lines]
    return "\n".join([parts[0], "", parts[1], "", *parts[2:]]) + "\n"


def print_analysis(analysis: dict, out: str | Path) -> None:
    """Print the tables of analysis.md."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(_summary(analysis), highlight=False)
    for table in _tables(analysis):
        shown = Table(title=table.title, caption=table.note or None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        shown.title_justify = shown.caption_justify = "left"
        for head in table.heads:
            shown.add_column(head)
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row))  # so that a system's name is not parsed as markup
        console.print(shown)
    console.print(f"{out}: analysis.md, analysis.json", highlight=False, soft_wrap=True)


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
    unused = analysis["forms_without_answers"]
    parts = [
        analysis["design"],
        f"{len(analysis['raters'])} raters",
        *([f"no answers from forms {', '.join(unused)}"] if unused else []),
        f"{analysis['cases']} cases",
        f"{analysis['answers']} answers, {analysis['missing']} missing",
        f"seed {analysis['seed']}",
    ]
    return f"{'; '.join(parts)}. Brackets are 95 % intervals."


def _tables(analysis: dict) -> list[_Table]:
    likert = analysis["design"] == "likert"
    tables = [_scores(analysis)] if likert else [_preferences(analysis), *_overall(analysis)]
    sides = _sides(analysis, likert)
    tables += [sides] if sides.rows else []
    return tables + ([_repeats(analysis, likert)] if analysis["repeats"] else [])


def _scores(analysis: dict) -> _Table:
    heads = ("system", "question", "raters", "items", "answers", "mean", "SD", "median", "alpha", "kappa")
    rows = [
        (
            system,
            name,
            *_extent(score),
            _interval(score["mean"], score["low"], score["high"]),
            _number(score["sd"]),
            _number(score["median"], 1),
            *_agreement(score),
        )
        for system, by_question in [*analysis["scores"].items(), ("all together", analysis["scores_together"])]
        for name, score in by_question.items()
    ]
    return _Table("Scores, 1 to 5", _AGREEMENT.format("ordinal"), heads, rows)


def _preferences(analysis: dict) -> _Table:
    heads = ("question", "system", "against", "preferred", "raters", "items", "answers", "alpha", "kappa")
    rows = []
    for block in analysis["preferences"]:
        for place, (system, share) in enumerate(block["shares"].items()):
            others = ", ".join(name for name in block["systems"] if name != system)
            rest = (*_extent(block), *_agreement(block)) if place == 0 else ("",) * 5
            rows.append((block["question"], system, others, _share(share), *rest))
    note = "Intervals of shares are Wilson's and treat a rater's answers as independent. "
    return _Table("Preferences", note + _AGREEMENT.format("nominal"), heads, rows)


def _overall(analysis: dict) -> list[_Table]:
    rows = [
        (system, name, _share(share), str(share["n"]))
        for system, by_question in analysis["preferences_overall"].items()
        for name, share in by_question.items()
    ]
    note = "Share of a system's trials in which it was preferred."
    return (
        [_Table("Preferences, all opponents", note, ("system", "question", "preferred", "answers"), rows)]
        if rows
        else []
    )


def _sides(analysis: dict, likert: bool) -> _Table:
    rows = []
    for name, by_position in analysis["sides"].items():
        for position, side in by_position.items():
            value = _interval(side["difference"], side["low"], side["high"]) if likert else _share(side)
            unbiased = 0.0 if likert else side["expected"]
            biased = side["low"] is not None and not side["low"] <= unbiased <= side["high"]
            rows.append(
                (name, position, value, _number(unbiased), str(side["n"]), "biased" if biased else "no sign of bias")
            )
    note = "A is the leftmost picture. " + (
        "How much higher the picture there is scored than the others of its trial."
        if likert
        else "How often the picture there was preferred."
    )
    heads = ("question", "position", "difference" if likert else "share", "unbiased", "n", "")
    return _Table("Sides", note, heads, rows)


def _repeats(analysis: dict, likert: bool) -> _Table:
    heads = ("question", "same answer", *(("mean difference",) if likert else ()), "n", "least consistent rater")
    rows = []
    for name, found in analysis["repeats"].items():
        worst = min(found["by_rater"].items(), key=lambda item: item[1]["share"], default=None)
        least = f"{worst[0]}: {worst[1]['count']} of {worst[1]['n']}" if worst else ""
        steps = (_number(found["mean_difference"]),) if likert else ()
        rows.append((name, _share(found["same"]), *steps, str(found["same"]["n"]), least))
    return _Table("Repeated trials", "The same pictures, shown again in reverse order.", heads, rows)


_AGREEMENT = (
    "Answers: how many of the questions were answered. Alpha is Krippendorff's ({}), with an interval over resampled "
    "cases; ** reliable (from .80), * tentative (from .667). Kappa is Fleiss'."
)


def _extent(block: dict) -> tuple[str, ...]:
    asked = block["answers"] + block["missing"]
    return str(block["raters"]), str(block["items"]), f"{block['answers']} of {asked}"


def _agreement(block: dict) -> tuple[str, str]:
    alpha = block["alpha"]
    stars = "" if alpha["value"] is None or alpha["value"] < 0.667 else "*" if alpha["value"] < 0.8 else "**"
    return _interval(alpha["value"], alpha["low"], alpha["high"]) + stars, _number(block["fleiss_kappa"]["value"])


def _number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return _number(value) + ("" if value is None or low is None else f" [{low:.2f}, {high:.2f}]")


def _share(share: dict) -> str:
    if share["share"] is None:
        return "undefined"
    return f"{share['share']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"
