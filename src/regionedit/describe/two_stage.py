"""The paper's describer: a vision-language model tells what the picture shows, a language model what it shall show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from regionedit.describe import microworld
from regionedit.describe.answers import TargetCaption, ask, source_captions
from regionedit.describe.model_describer import ModelDescriber, open_cache
from regionedit.describe.prompts import JOINED, prompt
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import DescribeConfig
    from regionedit.describe.cache import AnswerCache
    from regionedit.describe.chat import ChatModel

PIXELS = "microworld"  # the name of a vision model that is none: a microworld picture is read from its pixels


class TwoStage(ModelDescriber):
    """t_o = MLLM(X), t_e = LLM(t_o, instruction); several instructions are put to the language model as one question.

    Args:
        vision: tells what a picture shows; None reads a microworld picture's pixels.
        language: writes the target caption.
        cache: where answers outlive the process, or None.
    """

    def __init__(self, vision: ChatModel | None, language: ChatModel, cache: AnswerCache | None = None):
        self.vision = vision
        prompts = [prompt("source_caption").sha256, prompt("target_caption").sha256]
        identity: dict[str, Any] = {"vision": vision.identity if vision else PIXELS, "language": language.identity}
        super().__init__(language, identity | {"prompts": prompts}, cache)

    @classmethod
    def load(cls, config: DescribeConfig) -> Self:
        from regionedit.describe.local_models import LanguageModel, VisionLanguageModel

        cls.check(config)
        vision = None if config.vision == PIXELS else VisionLanguageModel.load(config)
        return cls(vision, LanguageModel.load(config), open_cache(config))

    def _ask(self, pictures: Sequence[Image], instructions: Sequence[tuple[str, ...]]) -> list[Captions | ValueError]:
        outcomes: list[Captions | ValueError | str] = self._sources(pictures)
        seen = [place for place, told in enumerate(outcomes) if isinstance(told, str)]
        question = prompt("target_caption")
        chats = [question.chat(caption=outcomes[p], instruction=JOINED.join(instructions[p])) for p in seen]
        for place, answer in zip(seen, ask(self.language, chats, TargetCaption), strict=True):
            told = isinstance(answer, TargetCaption)
            outcomes[place] = Captions(outcomes[place], answer.target_caption) if told else answer
        return outcomes

    def _sources(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        if self.vision is None:
            return [microworld.caption(picture) for picture in pictures]
        return source_captions(self.vision, pictures)
