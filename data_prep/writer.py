"""The interface of writers, which write instructions: a list of requests (`Ask`) in, one `Answer` for each out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
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
        key: key of the sample.
        caption: what the picture shows, in one line.
        operation: which edit to write; None if `instruction` is given.
        instruction: a given instruction, for which to write the target caption; or None.
        messages: the same request as chat messages.
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
    @abstractmethod
    def load(cls, config: WriteConfig) -> Self:
        """Create a writer; heavy libraries and weights are loaded here.

        Raises:
            ValueError: an unusable setting; says what to do.
        """

    @classmethod
    def identity(cls, config: WriteConfig) -> dict[str, Any]:
        """What decides the answers besides prompt and seed, as plain values; must not load weights."""
        return {}

    @abstractmethod
    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer for each request, in the same order.

        Raises:
            WriterError: no request can be answered.
        """

    def close(self) -> None:  # noqa: B027
        """Release what `load` acquired; does nothing for most writers."""


def fraction(*parts: object) -> float:
    """A number in [0, 1) that is a pure function of its parts."""
    return int.from_bytes(_digest(parts)[:8]) / 2**64


def seed_of(*parts: object) -> int:
    """A seed in [0, 2^31) that is a pure function of its parts; some servers take no larger ones."""
    return int.from_bytes(_digest(parts)[:4]) >> 1


def _digest(parts: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).digest()
