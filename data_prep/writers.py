"""Writers write instructions: a list of requests (`Ask`) in, one `Answer` for each out.

To add one, write a module with a subclass of `Writer` and add a line to `WRITERS`; a module is imported when its writer
is used.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from write_config import WriteConfig

TRANSIENT = "endpoint: "  # prefix of reasons that are not the sample's fault; the next run tries these again

CUT_OFF = "answer: cut off at sampling.max_tokens"


class WriterError(OSError):
    """The writer cannot go on: its endpoint, its process or Ray has failed; one line that says what to do."""


class WriterSettingError(WriterError, ValueError):
    """The writer or the describer cannot be loaded with these settings; one line that names the field."""


@dataclass(frozen=True)
class Ask:
    """A request to write one edit.

    Args:
        caption: what the picture shows, in one line.
        operation: which edit to write; None if `instruction` is given.
        instruction: a given instruction, for which to write the target caption; or None.
        messages: the same request for a chat model.
        seed: seed for sampling, in [0, 2^31), from the run's seed, the key and the attempt.
        attempt: 0; 1 after an invalid first answer.
    """

    key: str
    caption: str
    operation: str | None
    instruction: str | None
    messages: list[dict[str, str]]
    seed: int
    attempt: int


@dataclass(frozen=True)
class Answer:
    """The answer to a request: a text, or the reason why there is no usable one."""

    text: str = ""
    failure: str = ""


class Writer(ABC):
    """Writes instructions.

    A deterministic writer gives the same answers in any batch. Language models do not: their arithmetic depends on how
    requests are batched, so that reruns with the same seed only mostly agree.
    """

    @classmethod
    def load(cls, config: WriteConfig) -> Self:
        """Create a writer; heavy libraries and weights are loaded here.

        Raises:
            ValueError: an unusable setting; says what to do.
        """
        return cls()

    @classmethod
    def identity(cls, config: WriteConfig) -> dict[str, Any]:
        """What decides the answers besides prompt and seed, as plain values; must not load weights."""
        return {}

    @abstractmethod
    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer for each request, in the same order. Raises WriterError: no request can be answered."""

    def close(self) -> None:  # noqa: B027
        """Release what `load` acquired; does nothing for most writers."""


_SENTENCES = {  # operation -> instruction, target caption; {o}: the object, {c}: the caption
    "replace": ("replace the {o} with a vase", "{c} with a vase instead of the {o}"),
    "recolour": ("make the {o} green", "{c} with a green {o}"),
    "add": ("add a vase next to the {o}", "{c} with a vase next to the {o}"),
    "remove": ("remove the {o}", "{c} without the {o}"),
    "background": ("put it in front of a forest", "{c} in front of a forest"),
    "style": ("make it a watercolour", "a watercolour of {c}"),
    "noop": ("leave the picture as it is", "{c}"),
}


class StandInWriter(Writer):
    """For rehearsals and tests, without a model: puts the caption's longest word into fixed sentences; always valid."""

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        return [Answer(self.answer(ask)) for ask in asks]

    def answer(self, ask: Ask) -> str:
        longest = max(ask.caption.split(), key=len)[:60]
        instruction, target = _SENTENCES[ask.operation or "recolour"]
        edit = {
            "operation": ask.operation or "recolour",
            "instruction": instruction.format(o=longest),
            "target_caption": target.format(o=longest, c=ask.caption[:900]),
            "object": longest,
        }
        return json.dumps(edit)


WRITERS = {  # name -> module, class
    "microworld": ("microworld_writer", "MicroworldWriter"),
    "openai": ("endpoint_writer", "EndpointWriter"),
    "stand_in": ("writers", "StandInWriter"),
}


def require_writer(name: str) -> type[Writer]:
    """The class behind `writer`. Raises ValueError: unknown name; lists the known ones."""
    if name not in WRITERS:
        raise ValueError(f"writer: no writer {name!r}; use one of: {', '.join(sorted(WRITERS))}")
    module, kind = WRITERS[name]
    return getattr(importlib.import_module(module), kind)


def fraction(*parts: object) -> float:
    """A number in [0, 1) that is a pure function of its parts."""
    return int.from_bytes(_digest(parts)[:8]) / 2**64


def seed_of(*parts: object) -> int:
    """A seed in [0, 2^31) that is a pure function of its parts; some servers take no larger ones."""
    return int.from_bytes(_digest(parts)[:4]) >> 1


def _digest(parts: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).digest()
