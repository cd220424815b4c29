"""A describer that asks models in words: what it was told once is kept in memory and, if wanted, on disk."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from regionedit.describe.answers import Keyword, ask
from regionedit.describe.base import Describer
from regionedit.describe.cache import AnswerCache
from regionedit.describe.prompts import prompt
from regionedit.images import digest
from regionedit.keywords import keyword_place
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import DescribeConfig
    from regionedit.describe.base import Asked
    from regionedit.describe.chat import ChatModel


class ModelDescriber(Describer):
    """Asks models, each question once.

    Args:
        language: answers questions about texts.
        identity: plain values that tell who is asked what: models and prompts.
        cache: where answers outlive the process, or None.
    """

    names_keywords = True

    def __init__(self, language: ChatModel, identity: dict[str, Any], cache: AnswerCache | None = None):
        super().__init__()
        self.language = language
        self.identity = identity
        self.cache = cache
        self._keywords: dict[str, str | None] = {}

    @abstractmethod
    def _ask(self, pictures: Sequence[Image], instructions: Sequence[tuple[str, ...]]) -> list[Captions | ValueError]:
        """Captions from the models, or for each picture why there are none."""

    @abstractmethod
    def _sources(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        """What the pictures show, from the models, or for each picture why there are no words."""

    def tell(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        keys = [["source", digest(picture), self.identity] for picture in pictures]
        known = [self.cache.get(key) if self.cache else None for key in keys]
        told: list[str | ValueError | None] = [words and words.get("source") for words in known]
        new = [place for place, words in enumerate(told) if words is None]
        for place, words in zip(new, self._sources([pictures[place] for place in new]), strict=True):
            told[place] = words
            if self.cache and isinstance(words, str):
                self.cache.put(keys[place], {"source": words})
        return told

    def _write(self, asked: Sequence[Asked], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        keys = [[*key, self.identity] for key in asked]
        written: list[Captions | ValueError | None] = [self._remembered(key) for key in keys]
        new = [place for place, told in enumerate(written) if told is None]
        if new:
            answers = self._ask([pictures[place] for place in new], [asked[place][1] for place in new])
            for place, told in zip(new, answers, strict=True):
                written[place] = told
                if self.cache and isinstance(told, Captions):
                    self.cache.put(keys[place], asdict(told))
        return written

    def _remembered(self, key: list) -> Captions | None:
        known = self.cache.get(key) if self.cache else None
        return Captions(**known) if known and set(known) == {"source", "target"} else None

    def keyword(self, instruction: str) -> str | None:
        if instruction not in self._keywords:
            key = ["keyword", instruction, self.language.identity, prompt("keyword").sha256]
            known = self.cache.get(key) if self.cache else None
            if known is None:
                (answer,) = ask(self.language, [prompt("keyword").chat(instruction=instruction)], Keyword)
                known = answer.model_dump() if isinstance(answer, Keyword) else {}
                if isinstance(answer, ValueError):
                    warnings.warn(f"keyword: the rule has to find it; {answer}", stacklevel=2)
                if self.cache and known:
                    self.cache.put(key, known)
            self._keywords[instruction] = _word_of(instruction, known.get("keyword", ""))
        return self._keywords[instruction]


def _word_of(instruction: str, keyword: str) -> str | None:
    try:
        start, end = keyword_place(instruction, keyword)
    except ValueError:
        return None
    return instruction[start:end]


def open_cache(config: DescribeConfig) -> AnswerCache | None:
    """The cache that a configuration names."""
    return AnswerCache(config.cache, config.cache_entries) if config.cache else None
