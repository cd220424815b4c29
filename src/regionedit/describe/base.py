"""The interface of every describer: captions of a picture before and after its instructions.

A describer writes what the picture shows (t_o) and what it should show (t_e). It sees pixels and instructions, never
the truth of a case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from regionedit.images import digest
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import DescribeConfig

    CaptionKey = tuple[str, tuple[str, ...]]  # digest of a picture, and its instructions


class Describer(ABC):
    """Writes captions, once for each (picture, instructions).

    Attributes:
        names_keywords: `keyword` can query a language model.
    """

    names_keywords: ClassVar[bool] = False

    def __init__(self):
        self._known: dict[CaptionKey, Captions] = {}

    @classmethod  # noqa: B027  most have nothing to check
    def check(cls, config: DescribeConfig) -> None:
        """Refuse a configuration that this describer cannot work with; loads nothing. Raises ValueError."""

    @classmethod
    def load(cls, config: DescribeConfig) -> Self:
        """Load the describer. Raises ValueError: something is missing in the configuration; the message says what to
        do."""
        cls.check(config)
        return cls()

    def describe(self, pictures: Sequence[Image], instructions: Sequence[str | Sequence[str]]) -> list[Captions]:
        """Captions of RGB pictures, cached by the picture's content and the instructions.

        Args:
            instructions: for each picture its instruction, or all of them in their order; the target caption describes
                the picture after the last one.

        Raises:
            ValueError: this describer cannot caption a picture or understand an instruction; the message says what to
                do. The captions of the others stay in the cache.
        """
        instruction_lists = [(texts,) if isinstance(texts, str) else tuple(texts) for texts in instructions]
        keys = [(digest(picture), texts) for picture, texts in zip(pictures, instruction_lists, strict=True)]
        missing = {key: place for place, key in enumerate(keys) if key not in self._known}
        if missing:
            written = self._write(list(missing), [pictures[place] for place in missing.values()])
            outcomes = dict(zip(missing, written, strict=True))
            self._known |= {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Captions)}
            for outcome in outcomes.values():
                if not isinstance(outcome, Captions):
                    raise outcome
        return [self._known[key] for key in keys]

    @abstractmethod
    def source_captions(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        """The source caption (t_o) of each RGB picture, independent of any instruction; or an error."""

    def keyword(self, instruction: str) -> str | None:
        """The words of an instruction that name its object, according to a language model.

        They always occur in the instruction. None if there is no such model, or if it names no words of the
        instruction.
        """
        return None

    @abstractmethod
    def _write(self, keys: Sequence[CaptionKey], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        """Captions, or an error, for each of these pictures and their instructions; none of them is cached."""


class Given(Describer):
    """Describes nothing: every request has to bring its captions."""

    def source_captions(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        return self._lacking(len(pictures))

    def _write(self, keys: Sequence[CaptionKey], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        return self._lacking(len(keys))

    @staticmethod
    def _lacking(count: int) -> list[ValueError]:
        from regionedit.describe import DESCRIBERS

        others = ", ".join(name for name in DESCRIBERS if name != "given")
        lacking = ValueError(
            "captions: the request has none and describe.name is `given`; pass --target_caption (and "
            f"--source_caption for clip_similarity), or --describe.name {others}"
        )
        return [lacking] * count
