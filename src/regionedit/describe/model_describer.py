"""A describer that queries language models and keeps their answers in memory and, if configured, on disk."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from regionedit.describe.answers import Keyword, ask
from regionedit.describe.base import Describer
from regionedit.describe.cache import AnswerCache
from regionedit.describe.chat import prompt
from regionedit.images import digest
from regionedit.keywords import keyword_span
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.describe.base import CaptionKey
    from regionedit.describe.chat import ChatModel


class ModelDescriber(Describer):
    """Queries models, once for each question; `language` answers those about texts. `identity` has plain values that
    identify models and prompts; `cache` keeps answers on disk for later processes."""

    names_keywords = True

    def __init__(self, language: ChatModel, identity: dict[str, Any], cache: AnswerCache | None = None):
        super().__init__()
        self.language = language
        self.identity = identity
        self.cache = cache or AnswerCache()
        self._keywords: dict[str, str | None] = {}

    @abstractmethod
    def _ask(self, pictures: Sequence[Image], instructions: Sequence[tuple[str, ...]]) -> list[Captions | ValueError]:
        """Captions from the models, or for each picture an error."""

    @abstractmethod
    def _sources(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        """Source captions from the models, or for each picture an error."""

    def source_captions(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        keys = [["source", digest(picture), self.identity] for picture in pictures]
        captions: list[str | ValueError | None] = [(self.cache.get(key) or {}).get("source") for key in keys]
        missing = [index for index, caption in enumerate(captions) if caption is None]
        for index, caption in zip(missing, self._sources([pictures[index] for index in missing]), strict=True):
            captions[index] = caption
            if isinstance(caption, str):
                self.cache.put(keys[index], {"source": caption})
        return captions

    def _write(self, keys: Sequence[CaptionKey], pictures: Sequence[Image]) -> list[Captions | ValueError]:
        stored_keys = [[*key, self.identity] for key in keys]
        written: list[Captions | ValueError | None] = [self._cached(key) for key in stored_keys]
        missing = [index for index, captions in enumerate(written) if captions is None]
        if missing:
            answers = self._ask([pictures[index] for index in missing], [keys[index][1] for index in missing])
            for index, captions in zip(missing, answers, strict=True):
                written[index] = captions
                if isinstance(captions, Captions):
                    self.cache.put(stored_keys[index], asdict(captions))
        return written

    def _cached(self, key: list) -> Captions | None:
        stored = self.cache.get(key)
        return Captions(**stored) if stored and set(stored) == {"source", "target"} else None

    def keyword(self, instruction: str) -> str | None:
        if instruction not in self._keywords:
            key = ["keyword", instruction, self.language.identity, prompt("keyword").sha256]
            known = self.cache.get(key)
            if known is None:
                (answer,) = ask(self.language, [prompt("keyword").chat(instruction=instruction)], Keyword)
                known = answer.model_dump() if isinstance(answer, Keyword) else {}
                if isinstance(answer, ValueError):
                    warnings.warn(f"keyword: the rule has to find it; {answer}", stacklevel=2)
                if known:
                    self.cache.put(key, known)
            self._keywords[instruction] = _word_of(instruction, known.get("keyword", ""))
        return self._keywords[instruction]


def _word_of(instruction: str, keyword: str) -> str | None:
    try:
        start, end = keyword_span(instruction, keyword)
    except ValueError:
        return None
    return instruction[start:end]
