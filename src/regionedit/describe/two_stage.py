"""The paper's describer: a vision-language model writes the source caption, a language model the target caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from regionedit.describe import microworld
from regionedit.describe.answers import TargetCaption, ask, source_captions
from regionedit.describe.cache import AnswerCache
from regionedit.describe.chat import JOINED, prompt
from regionedit.describe.model_describer import ModelDescriber
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import TwoStageConfig
    from regionedit.describe.chat import ChatModel

PIXELS = "microworld"  # value of describe.vision without a model: captions are read from a microworld picture's pixels


class TwoStage(ModelDescriber):
    """t_o = MLLM(X), t_e = LLM(t_o, instruction); several instructions make one question to the language model. Without
    a vision model, t_o is read from a microworld picture's pixels."""

    def __init__(self, vision: ChatModel | None, language: ChatModel, cache: AnswerCache | None = None):
        self.vision = vision
        prompts = [prompt("source_caption").sha256, prompt("target_caption").sha256]
        identity: dict[str, Any] = {"vision": vision.identity if vision else PIXELS, "language": language.identity}
        super().__init__(language, identity | {"prompts": prompts}, cache)

    @classmethod
    def load(cls, config: TwoStageConfig) -> Self:
        from regionedit.describe.local_models import LanguageModel, VisionLanguageModel

        cls.check(config)
        vision = None if config.vision == PIXELS else VisionLanguageModel(config)
        return cls(vision, LanguageModel(config), AnswerCache(config.cache, config.cache_entries))

    def _ask(self, pictures: Sequence[Image], instructions: Sequence[tuple[str, ...]]) -> list[Captions | ValueError]:
        outcomes: list[Captions | ValueError | str] = self._sources(pictures)
        captioned = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, str)]
        question = prompt("target_caption")
        chats = [question.chat(caption=outcomes[p], instruction=JOINED.join(instructions[p])) for p in captioned]
        for index, answer in zip(captioned, ask(self.language, chats, TargetCaption), strict=True):
            answered = isinstance(answer, TargetCaption)
            outcomes[index] = Captions(outcomes[index], answer.target_caption) if answered else answer
        return outcomes

    def _sources(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        if self.vision is None:
            return [microworld.caption(picture) for picture in pictures]
        return source_captions(self.vision, pictures)
