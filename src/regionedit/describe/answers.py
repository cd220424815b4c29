"""Strict parser for the answers of language models: one JSON object with exactly the requested fields, or an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from regionedit.describe.chat import Chat, ChatModel, prompt

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ANSWER = 10_000  # characters; a longer one is not even parsed
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]+$")
]
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


class Answer(BaseModel):
    """The fields that a prompt requests: exactly these, each one line of text."""

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


Kind = TypeVar("Kind", bound=BaseModel)


def read_answer(text: str, kind: type[Kind]) -> Kind:
    """Parse one answer; a code fence around it is the only deviation that is accepted.

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


def ask(
    model: ChatModel, chats: Sequence[Chat], kind: type[Kind], section: str = "describe", wanted: str = ""
) -> list[Kind | ValueError]:
    """The answers to chats; a chat whose answer cannot be parsed is sent once more.

    Args:
        section: section of the configuration that an error begins with.
        wanted: what an error says is missing; by default the names of the fields.

    Returns:
        For each chat its answer, or an error.
    """
    outcomes: dict[int, Kind | ValueError] = {}
    open_chats = list(range(len(chats)))
    for again in (False, True):
        unparsed = []
        for index, text in zip(open_chats, model.answer([chats[p] for p in open_chats], again), strict=True):
            if isinstance(text, ValueError):  # no answer at all: the model has made its own attempts already
                outcomes[index] = text
                continue
            try:
                outcomes[index] = read_answer(text, kind)
            except ValueError as error:
                missing = wanted or ", ".join(kind.model_fields)
                outcomes[index] = ValueError(f"{section}: {model.identity['name']} gave no {missing}: {error}")
                unparsed.append(index)
        open_chats = unparsed
        if not open_chats:
            break
    return [outcomes[index] for index in range(len(chats))]


def source_captions(model: ChatModel, pictures: Sequence[Image]) -> list[str | ValueError]:
    """Source captions of pictures from a vision-language model, or for each an error."""
    answers = ask(model, [prompt("source_caption").chat(picture) for picture in pictures], SourceCaption)
    return [answer.source_caption if isinstance(answer, SourceCaption) else answer for answer in answers]
