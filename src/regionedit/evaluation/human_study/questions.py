"""The questions for raters, and how they are answered."""

from __future__ import annotations

from dataclasses import dataclass

DESIGNS = ("likert", "forced_choice")
POSITIONS = "ABCDEF"  # from left to right; more pictures do not fit on a page
SCALE = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Question:
    """A question, its column in the answer sheets, its explanation, and the labels of 1, 3 and 5 on the scale."""

    name: str
    text: str
    meaning: str
    low: str
    middle: str
    high: str


QUESTIONS = (
    Question(
        "inside",
        "Did the edit stay inside the region the instruction is about?",
        "The region is the object or place that the instruction names; for something new, the place where it appears. "
        "Compare everything else with the original: it should look the same. Do not judge here whether the instruction "
        "was followed: a picture in which nothing changed stayed inside.",
        low="no, much else changed",
        middle="partly",
        high="yes, nothing else changed",
    ),
    Question(
        "followed",
        "Did the edit follow the instruction?",
        "Does the picture now show what was asked for? Do not judge here whether other parts changed as well.",
        low="not at all",
        middle="partly",
        high="completely",
    ),
)
NAMES = tuple(question.name for question in QUESTIONS)


def answer_columns(design: str) -> tuple[str, ...]:
    """The columns of an answer sheet."""
    return ("rater", "trial", *(("position",) if design == "likert" else ()), *NAMES)
