"""The sheets of a study: the key, which says which system made which picture, and the answers.

The key has a row for every picture of every trial. An answer sheet has a row for every picture (likert) or every trial
(forced_choice) and a column for every question; empty cells are missing answers, further columns are notes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from regionedit.evaluation.human_study.assignment import Trial

DESIGNS = ("likert", "forced_choice")
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
        "low": "no, much else changed",
        "middle": "partly",
        "high": "yes, nothing else changed",
    },
    {
        "name": "followed",
        "text": "Did the edit follow the instruction?",
        "meaning": "Does the picture now show what was asked for? Do not judge here whether other parts changed as "
        "well.",
        "low": "not at all",
        "middle": "partly",
        "high": "completely",
    },
)
NAMES = tuple(question["name"] for question in QUESTIONS)
KEY_COLUMNS = ("trial", "rater", "number", "case", "position", "system", "repeat_of", "design", "seed")


def answer_columns(design: str) -> tuple[str, ...]:
    """The columns of an answer sheet."""
    return ("rater", "trial", *(("position",) if design == "likert" else ()), *NAMES)


def sheets(trials: Iterable[Trial], design: str, seed: int) -> tuple[bytes, bytes]:
    """The key and the empty answer sheet as CSV, in the order of the forms; position A is leftmost."""
    rows = [
        (t.name, f"{t.rater:02d}", t.number, t.case, position, system, t.repeat_of, design, seed)
        for t in trials
        for position, system in zip(POSITIONS, t.systems, strict=False)
    ]
    key = pd.DataFrame(rows, columns=KEY_COLUMNS)
    template = key.reindex(columns=answer_columns(design)).drop_duplicates()
    return tuple(table.to_csv(index=False, lineterminator="\n").encode() for table in (key, template))


def read_key(path: str | Path) -> pd.DataFrame:
    """Read key.csv; all columns are text except `seed`. Raises ValueError if the file is not a key."""
    try:
        key = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"key: {path} cannot be read: {error}") from None
    if tuple(key.columns) != KEY_COLUMNS or not len(key):
        raise ValueError(f"key: {path} is not a study's key.csv; expected rows of {','.join(KEY_COLUMNS)}")
    if key["design"].nunique() > 1 or key["design"][0] not in DESIGNS or key.duplicated(["trial", "position"]).any():
        raise ValueError(f"key: {path} was changed: expected one design, and every position of a trial once")
    return key.astype({"seed": int})


def read_answers(paths: Sequence[str | Path], key: pd.DataFrame) -> pd.DataFrame:
    """Read all answer sheets; their cells are separated by commas, semicolons or tabs.

    Returns:
        A row for each answer: rater, trial, position (likert only, else empty), question, and answer, an int of the
        scale (likert) or the letter of a position (forced_choice).

    Raises:
        ValueError: an unknown trial, position or value, a rater without an id or with two forms, or a question that was
            answered twice; names file and line.
    """
    design = key["design"][0]
    pages = key.groupby("trial").agg(form=("rater", "first"), positions=("position", sorted)).to_dict("index")
    answered: dict[tuple, str] = {}  # file and line
    form_of: dict[str, tuple[str, str]] = {}  # rater -> form, and its first file and line
    answers = []
    for where, row in (line for path in paths for line in _rows(Path(path), answer_columns(design))):
        rater, trial, position = row["rater"], row["trial"], row.get("position", "").upper()
        if trial not in pages:
            raise ValueError(f"{where}: unknown trial {trial!r}; the key belongs to another study")
        form, positions = pages[trial].values()
        if design == "likert" and position not in positions:
            raise ValueError(f"{where}: position {position!r} is none of {', '.join(positions)}")
        allowed = {str(value): value for value in (SCALE if design == "likert" else positions)}
        given = {name: row[name] for name in NAMES if row[name]}
        if not given:
            continue
        for name, value in given.items():
            if value.upper() not in allowed:
                raise ValueError(f"{where}: {name}: {value!r} is none of {', '.join(allowed)}")
            answers.append((rater, trial, position, name, allowed[value.upper()]))
        if not rater:
            raise ValueError(f"{where}: the rater has no id; fill in column rater")
        first_form, first = form_of.setdefault(rater, (form, where))
        if form != first_form:
            raise ValueError(
                f"{where}: rater {rater!r} answers form {form} here and form {first_form} in {first}; "
                "give each rater an id of their own"
            )
        earlier = answered.setdefault((rater, trial, position), where)
        if earlier != where:
            raise ValueError(f"{where}: rater {rater!r} has answered this in {earlier}; keep one of them")
    if not answers:
        raise ValueError(f"answers: no answer in {', '.join(map(str, paths))}")
    return pd.DataFrame(answers, columns=["rater", "trial", "position", "question", "answer"])


def _rows(path: Path, columns: Sequence[str]) -> Iterable[tuple[str, dict[str, str]]]:
    """File and line, and the cells, of every row that is not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # skips the byte order mark of spreadsheets
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"answers: {path} cannot be read: {error}") from None
    head = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count), restval="")
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path} line 1: no column {missing[0]!r}; expected {','.join(columns)}")
    for row in reader:
        cells = {name: row[name].strip() for name in columns}
        if any(cells.values()):
            yield f"{path} line {reader.line_num}", cells
