"""The schema of a written instruction, and the parser that extracts and validates one from a model's answer.

Only the answer is checked against the rules; text in a caption, even an order to the model, cannot change them.
"""

from __future__ import annotations

import json
import re
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Operation = Literal["replace", "recolour", "add", "remove", "background", "style", "noop"]
OPERATIONS: tuple[str, ...] = get_args(Operation)
_NEED_OBJECT = ("replace", "recolour", "add", "remove")
LONGEST_ANSWER = 8000  # characters; longer answers are refused
_DECODER = json.JSONDecoder()

# Words that almost every English request contains, and words that are typical of other languages in Latin script.
# Ordinary language detection does not work on sentences of five words.
_ENGLISH = frozenset(
    "the a an to of with in on into and it its for from at as by make makes turn change changed replace swap put add "
    "remove delete erase take give paint color colour let keep leave want would like could can you please i should "
    "be is are there background picture instead where".split()
)
_OTHER = frozenset(
    "le la les un une des du et dans en avec sur pour der die das ein eine einen und mit auf ist den dem zu el los las "
    "una del con por para y il lo gli di che per nel het een van op met os um uma da com na är och att med på af og "
    "til ersetze ersetzen remplace remplacer cambia cambiar sostituisci vervang substitua".split()
)


class BadAnswer(ValueError):
    """The answer is not a valid instruction; `reason` is short, and the same for all answers that fail the same way."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Edit(BaseModel):
    """One edit as the model must write it; also the JSON schema for engines that support structured output."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    operation: Operation
    instruction: str = Field(min_length=3, max_length=300)
    target_caption: str = Field(min_length=3, max_length=1000)
    object: str = Field(default="", max_length=100)


class Target(BaseModel):
    """What the model must write if the instruction is given."""

    model_config = Edit.model_config

    operation: Operation
    target_caption: str = Field(min_length=3, max_length=1000)
    object: str = Field(default="", max_length=100)


def read_answer(
    text: str, caption: str, operation: str | None, instruction: str | None = None, language: str = "en"
) -> Edit:
    """Parse the edit in a model's answer, or raise BadAnswer: one JSON object, alone or within prose or a code fence.

    Args:
        caption: caption of the picture, in one line, words separated by single spaces.
        operation: the requested operation; None if the model had to infer it from a given instruction.
        instruction: the given instruction; None if the model had to write it.
        language: `en` refuses instructions that are not English; `any` accepts all.
    """
    found = _object(text)
    if instruction is not None:
        found = {**found, "instruction": instruction}
    try:
        edit = Edit.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise BadAnswer(f"{'.'.join(map(str, first['loc']))}: {first['type'].replace('_', ' ')}") from None
    for name in ("instruction", "target_caption", "object"):
        text = getattr(edit, name)
        if "  " in text or not text.isprintable():
            text = " ".join(text.split())
            if not text.isprintable():
                raise BadAnswer(f"{name}: not printable")
            setattr(edit, name, text)
    if operation is not None and edit.operation != operation:
        raise BadAnswer("operation: not the one asked for")
    if edit.operation in _NEED_OBJECT and not edit.object:
        raise BadAnswer("object: missing")
    if instruction is None and language == "en" and not is_english(edit.instruction):
        raise BadAnswer("instruction: another language")
    if not _same_script(caption, edit.target_caption):
        raise BadAnswer("target_caption: another language")
    if edit.operation == "noop":
        edit.target_caption = caption  # nothing changes, by definition
    elif _normalized(edit.target_caption) == _normalized(caption):
        raise BadAnswer("target_caption: the caption, unchanged")
    return edit


def is_english(text: str) -> bool:
    """True if the letters and the most common words of an instruction suggest English."""
    if _latin_share(text) < 0.9:
        return False
    words = re.findall(r"[^\W\d_]+", text.lower())
    ours, theirs = sum(word in _ENGLISH for word in words), sum(word in _OTHER for word in words)
    return ours > theirs or (ours == theirs and len(words) < 4)


def _object(text: str) -> dict:
    """The one JSON object in an answer."""
    if len(text) > LONGEST_ANSWER:
        raise BadAnswer("answer: too long")
    found, place = [], text.find("{")
    while place >= 0:
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            found.append(value)
        place = text.find("{", end)
    if len(found) == 1:
        return found[0]
    if found:
        raise BadAnswer("answer: several JSON objects")
    raise BadAnswer("answer: broken JSON" if "{" in text else "answer: prose without JSON")


def _latin_share(text: str) -> float:
    """Share of the letters that are Latin; 1 where there are none."""
    if text.isascii():
        return 1.0
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter < "\u0250" for letter in letters) / len(letters) if letters else 1.0


def _same_script(caption: str, target: str) -> bool:
    """True if both captions are mostly Latin, or neither is; a rough check that they share a language."""
    return (_latin_share(caption) >= 0.5) == (_latin_share(target) >= 0.5)


def _normalized(caption: str) -> str:
    """A caption for comparison, without case and final full stops."""
    return caption.casefold().rstrip(" .")
