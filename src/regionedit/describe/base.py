"""What every describer promises: captions of a picture before and after its instructions.

A describer writes what the picture shows (t_o), and what it shall show (t_e). It sees pixels and instructions, never
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

    Asked = tuple[str, tuple[str, ...]]  # a picture's digest, and its instructions


class Describer(ABC):
    """Writes captions, once for each (picture, instructions).

    Attributes:
        names_keywords: has a language model that `keyword` asks.
    """

    names_keywords: ClassVar[bool] = False

    def __init__(self):
        self._known: dict[Asked, Captions] = {}

    @classmethod  # noqa: B027  most have nothing to refuse
    def check(cls, config: DescribeConfig) -> None:
        """Refuse a configuration that this describer cannot work with; loads nothing. Raises ValueError."""

    @classmethod
    def load(cls, config: DescribeConfig) -> Self:
        """Make the describer ready. Raises ValueError: what the configuration lacks, and the way out."""
        cls.check(config)
        return cls()

    def describe(self, pictures: Sequence[Image], instructions: Sequence[str | Sequence[str]]) -> list[Captions]:
        """Captions of RGB pictures; remembered by the picture's content.

        Args:
            instructions: for each picture its instruction, or all of them in their order; the target caption tells the
                picture after the last.

        Raises:
            ValueError: a picture or instruction that this describer cannot put into words, and what to do. What was
                written for the others is remembered.
        """
        several = [(texts,) if isinstance(texts, str) else tuple(texts) for texts in instructions]
        asked = [(digest(picture), texts) for picture, texts in zip(pictures, several, strict=True)]
        new = {key: place for place, key in enumerate(asked) if key not in self._known}
        if new:
            written = self._write(list(new), [pictures[place] for place in new.values()])
            outcomes = dict(zip(new, written, strict=True))
            self._known |= {key: told for key, told in outcomes.items() if isinstance(told, Captions)}
            for told in outcomes.values():
                if not isinstance(told, Captions):
                    raise told
        return [self._known[key] for key in asked]

    @abstractmethod
    def tell(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        """What each RGB picture shows (t_o), whatever will be asked of it; or why there are no words for it."""

    def keyword(self, instruction: str) -> str | None:
        """The words of an instruction that name the thing it is about, by a language model.

        Always words that stand in the instruction. None where there is no such model, or it names none.
        """
        return None

    @abstractmethod
    def _write(self, asked: Sequence[Asked], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        """For each that was not asked before its captions, or why there are none."""
