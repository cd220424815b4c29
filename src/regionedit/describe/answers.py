"""Answers of language models, read strictly: one JSON object with the fields that were asked for, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from regionedit.describe.chat import Chat, ChatModel
from regionedit.describe.prompts import prompt

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ANSWER = 10_000  # characters; a longer one is not even parsed
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]+$")
]
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


class Answer(BaseModel):
    """What a prompt asks for: exactly these fields, each one line of text."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SourceCaption(Answer):
    source_caption: Line


class TargetCaption(Answer):
    target_caption: Line


class BothCaptions(Answer):
    source_caption: Line
    target_caption: Line


class Keyword(Answer):
    keyword: Line


Kind = TypeVar("Kind", bound=Answer)


def read_answer(text: str, kind: type[Kind]) -> Kind:
    """One answer; a code fence around it is all that is forgiven.

    Raises:
        ValueError: no JSON object, other fields, empty or overlong text; one line that quotes the answer's beginning.
    """
    bare = text[:MAX_ANSWER].strip()
    fenced = _FENCED.fullmatch(bare)
    try:
        if len(text) > MAX_ANSWER:
            raise ValueError(f"{len(text)} characters")
        return kind.model_validate_json(fenced[1] if fenced else bare)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{' '.join(reason.split())[:150]}; it answered {' '.join(bare.split())[:80]!r}")


def ask(model: ChatModel, chats: Sequence[Chat], kind: type[Kind]) -> list[Kind | ValueError]:
    """The answers to chats; what cannot be read is asked once more, and then given up.

    Returns:
        For each chat its answer, or what went wrong with it.
    """
    outcomes: dict[int, Kind | ValueError] = {}
    waiting = list(range(len(chats)))
    for again in (False, True):
        unread = []
        for place, text in zip(waiting, model.answer([chats[p] for p in waiting], again), strict=True):
            if isinstance(text, ValueError):  # no answer at all: the model has its own way to try again
                outcomes[place] = text
                continue
            try:
                outcomes[place] = read_answer(text, kind)
            except ValueError as error:
                wanted = ", ".join(kind.model_fields)
                outcomes[place] = ValueError(f"describe: {model.identity['name']} gave no {wanted}: {error}")
                unread.append(place)
        waiting = unread
        if not waiting:
            break
    return [outcomes[place] for place in range(len(chats))]


def source_captions(model: ChatModel, pictures: Sequence[Image]) -> list[str | ValueError]:
    """What a model that sees says each picture shows, or why there is no answer."""
    answers = ask(model, [prompt("source_caption").chat(picture) for picture in pictures], SourceCaption)
    return [answer.source_caption if isinstance(answer, SourceCaption) else answer for answer in answers]
