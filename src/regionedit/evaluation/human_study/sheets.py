"""The sheets of a study: the key, which says which system made which picture, and the answers.

The key has a row for every picture of every trial. An answer sheet has a row for every picture (likert) or every trial
(forced_choice) and a column for every question; empty cells are missing answers, further columns are notes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from regionedit.evaluation.human_study.assignment import Trial

POSITIONS = "ABCDEF"  # from left to right; more pictures do not fit on a page
SCALE = (1, 2, 3, 4, 5)
# Each with its column in the answer sheets, its explanation, and the labels of 1, 3 and 5 on the scale.
QUESTIONS = (
    {
        "name": "inside",
        "text": "Did the edit stay inside the region the instruction is about?",
        "meaning": "The region is the object or place that the instruction names; for something new, the place where "
        "it appears. Compare everything else with the original: it should look the same. Do not judge here whether the "
        "instruction was followed: a picture in which nothing changed stayed inside.",
        "scale": ("no, much else changed", "partly", "yes, nothing else changed"),
    },
    {
        "name": "followed",
        "text": "Did the edit follow the instruction?",
        "meaning": "Does the picture now show what was asked for? Do not judge here whether other parts changed, too.",
        "scale": ("not at all", "partly", "completely"),
    },
)
NAMES = tuple(question["name"] for question in QUESTIONS)
KEY_COLUMNS = ("trial", "rater", "number", "case", "position", "system", "repeat_of", "design", "seed")


def answer_columns(design: str) -> tuple[str, ...]:
    """The columns of an answer sheet."""
    return ("rater", "trial", "position", *NAMES) if design == "likert" else ("rater", "trial", *NAMES)


def sheets(trials: Sequence[Trial], design: str, seed: int) -> tuple[bytes, bytes]:
    """The key and the empty answer sheet as CSV, in the order of the forms; position A is leftmost."""
    key = pd.DataFrame(trials).rename(columns={"name": "trial", "systems": "system"}).explode("system", True)
    position = key.groupby("trial").cumcount().map([*POSITIONS].__getitem__)
    rater = key["rater"].map("{:02d}".format)
    key = key.assign(rater=rater, position=position, design=design, seed=seed)[[*KEY_COLUMNS]]
    template = key.reindex(columns=answer_columns(design)).drop_duplicates()
    return tuple(table.to_csv(index=False, lineterminator="\n").encode() for table in (key, template))


def read_key(path: str | Path) -> pd.DataFrame:
    """Read key.csv; all columns are text except `seed`."""
    try:
        key = pd.read_csv(path, dtype=str, keep_default_na=False)
        one_design = tuple(key.columns) == KEY_COLUMNS and key["design"].nunique() == 1
        if not one_design or key.duplicated(["trial", "position"]).any():
            raise ValueError(f"expected rows of {','.join(KEY_COLUMNS)}, of one design, each position of a trial once")
    except (OSError, ValueError) as error:
        raise ValueError(f"key: {path} is not a study's key.csv: {error}") from None
    return key.astype({"seed": int})


def read_answers(paths: Sequence[str | Path], key: pd.DataFrame) -> pd.DataFrame:
    """Read all answer sheets: a row for each answer. A ValueError about a cell names its file and line."""
    likert = key["design"][0] == "likert"
    form_of = dict(zip(key["trial"], key["rater"], strict=True))
    positions_of = key.groupby("trial")["position"].agg(list)
    rows = [row for path in paths for row in _rows(Path(path), answer_columns(key["design"][0]))]
    answers, first_of, place_of = [], {}, {}
    for row, name in ((row, name) for row in rows for name in NAMES if row[name]):
        where, rater, trial, answer = row["where"], row["rater"], row["trial"], row[name].upper()
        position = row["position"].upper() if likert else answer
        form, positions = form_of.get(trial), positions_of.get(trial, [])
        first_form, first = first_of.setdefault(rater, (form, where))
        earlier = place_of.setdefault((rater, trial, name, likert and position), where)
        for wrong, fault in (
            (not form, f"unknown trial {trial!r}; the key belongs to another study"),
            (position not in positions, f"{name}: position {position!r} is none of {', '.join(positions)}"),
            (likert and answer not in map(str, SCALE), f"{name}: {answer!r} is none of {SCALE}"),
            (not rater, "the rater has no id; fill in column rater"),
            (form != first_form, f"rater {rater!r} answers form {form} here and form {first_form} in {first}"),
            (where != earlier, f"rater {rater!r} has answered this in {earlier}; keep one of them"),
        ):
            if wrong:
                raise ValueError(f"{where}: {fault}")
        answers.append((rater, trial, position, name, int(answer) if likert else answer))
    if not answers:
        raise ValueError(f"answers: no answer in {', '.join(map(str, paths))}")
    return pd.DataFrame(answers, columns=["rater", "trial", "position", "question", "answer"])


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The cells and the place, file and line, of every row."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # skips the byte order mark of spreadsheets
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"answers: {path} cannot be read: {error}") from None
    head = text.split("\n", 1)[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count), restval="")
    if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
        raise ValueError(f"{path} line 1: no column {missing[0]!r}; expected {','.join(columns)}")
    return [{"where": f"{path} line {rows.line_num}"} | {n: row[n].strip() for n in columns} for row in rows]
