"""Both captions from one call of one vision-language model, which needs half the memory of two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from regionedit.describe.answers import BothCaptions, ask, source_captions
from regionedit.describe.cache import AnswerCache
from regionedit.describe.chat import JOINED, prompt
from regionedit.describe.endpoint import ChatEndpoint, require_endpoint
from regionedit.describe.model_describer import ModelDescriber
from regionedit.describe.two_stage import PIXELS
from regionedit.records import Captions

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.config import EndpointConfig, VlmConfig
    from regionedit.describe.chat import ChatModel


class OneCall(ModelDescriber):
    """Both captions of a picture in one answer of a model that sees the picture and reads the instructions."""

    def __init__(self, model: ChatModel, cache: AnswerCache | None = None):
        prompts = [prompt("both_captions").sha256, prompt("source_caption").sha256]
        super().__init__(model, {"model": model.identity, "prompts": prompts}, cache)

    def _sources(self, pictures: Sequence[Image]) -> list[str | ValueError]:
        return source_captions(self.language, pictures)

    def _ask(self, pictures: Sequence[Image], instructions: Sequence[tuple[str, ...]]) -> list[Captions | ValueError]:
        question = prompt("both_captions")
        pairs = zip(pictures, instructions, strict=True)
        chats = [question.chat(picture, instruction=JOINED.join(texts)) for picture, texts in pairs]
        answers = ask(self.language, chats, BothCaptions)
        return [Captions(a.source_caption, a.target_caption) if isinstance(a, BothCaptions) else a for a in answers]


class Vlm(OneCall):
    """A vision-language model in this process."""

    @classmethod
    def check(cls, config: VlmConfig) -> None:
        if config.vision == PIXELS:
            raise ValueError(
                "describe.vision: `vlm` needs a vision-language model; name one, for example "
                "Qwen/Qwen2.5-VL-7B-Instruct, or use --describe.name microworld"
            )

    @classmethod
    def load(cls, config: VlmConfig) -> Self:
        from regionedit.describe.local_models import VisionLanguageModel

        cls.check(config)
        return cls(VisionLanguageModel(config), AnswerCache(config.cache, config.cache_entries))


class Endpoint(OneCall):
    """A vision-language model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp or a hosted service."""

    @classmethod
    def check(cls, config: EndpointConfig) -> None:
        require_endpoint(config, "describe")

    @classmethod
    def load(cls, config: EndpointConfig) -> Self:
        cls.check(config)
        return cls(ChatEndpoint(config), AnswerCache(config.cache, config.cache_entries))
