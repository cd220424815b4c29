"""The contract of what writes instructions: asks in, one answer for each out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from instruction_schema import OPERATIONS

if TYPE_CHECKING:
    from write_config import WriteConfig

TRANSIENT = "endpoint: "  # how the reasons begin that say nothing about the sample: run again to ask again

CUT_OFF = "answer: cut off at sampling.max_tokens"


class WriterError(RuntimeError):
    """The writer cannot go on at all; one line that says what to do."""


class WriterSettingError(WriterError, ValueError):
    """The writer, or the describer, cannot begin with these settings; one line that names the field."""


@dataclass(frozen=True)
class Ask:
    """One caption to write for.

    Args:
        key: of the sample.
        caption: what the picture shows, in one line.
        operation: which edit to write; None where `instruction` is given.
        instruction: a given one, whose target caption is asked for, or None.
        messages: the same as a chat.
        seed: of the sampling, from the run's seed, the key and the attempt: in [0, 2^31).
        attempt: 0, and 1 where the first answer was no good.
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
    """What came back: a text, or the reason why it is of no use."""

    text: str = ""
    failure: str = ""


class Writer(ABC):
    """Writes instructions. A deterministic one gives the same answers in any batch; engines of real language models
    do not: their arithmetic depends on what is computed together, so that a seed makes reruns agree only mostly.

    Args:
        operations: what it can write.
    """

    operations: ClassVar[tuple[str, ...]] = OPERATIONS

    @classmethod
    @abstractmethod
    def load(cls, config: WriteConfig) -> Self:
        """Make one ready; heavy libraries and weights are loaded here.

        Raises:
            ValueError: a setting that it cannot use, with the way out.
        """

    @classmethod
    def identity(cls, config: WriteConfig) -> dict[str, Any]:
        """What decides its answers besides prompt and seed, as plain values; no weights are loaded for it."""
        return {}

    @abstractmethod
    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        """One answer for each ask, in their order.

        Raises:
            WriterError: no ask can be answered.
        """

    def close(self) -> None:  # noqa: B027
        """Give back what `load` took; most took nothing."""


def fraction(*parts: object) -> float:
    """A number in [0, 1) that is a pure function of its parts."""
    return int.from_bytes(_digest(parts)[:8]) / 2**64


def seed_of(*parts: object) -> int:
    """A seed in [0, 2^31) that is a pure function of its parts; some servers take no larger ones."""
    return int.from_bytes(_digest(parts)[:4]) >> 1


def _digest(parts: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).digest()
