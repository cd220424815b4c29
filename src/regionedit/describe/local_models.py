"""Chat models in this process, run by transformers: language models and vision-language models.

Answers are decoded greedily; those of a second attempt are sampled with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch

from regionedit.command_line import one_line
from regionedit.describe.chat import Chat, ChatModel, messages
from regionedit.device import pick_device, pick_dtype
from regionedit.images import smaller
from regionedit.provenance import identify

if TYPE_CHECKING:
    from regionedit.config import TwoStageConfig, VlmConfig

TEMPERATURE, SEED = 0.7, 0  # of a second attempt


class LanguageModel(ChatModel):
    """Any AutoModelForCausalLM whose tokenizer has a chat template; chats are answered together.

    Args:
        model, tokenizer: loaded.
        name, revision: what they were loaded from.
        max_tokens: maximum length of one answer.
    """

    def __init__(self, model, tokenizer, name: str, revision: str | None, max_tokens: int):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._identity = identify(name, revision) | {"max_tokens": max_tokens, "precision": str(model.dtype)}

    @classmethod
    def load(cls, config: TwoStageConfig) -> Self:
        """Load `describe.language`. Raises ValueError: no such weights, or no chat template."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name, revision = config.language, config.language_revision
        device = pick_device(config.device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, padding_side="left")
            dtype = getattr(torch, pick_dtype(config.dtype, device))
            model = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(_not_loaded("language", name, error)) from error
        if not tokenizer.chat_template:
            raise ValueError(f"describe.language: {name} has no chat template; use an instruction-tuned model")
        return cls(model.to(device), tokenizer, name, revision, config.max_tokens)

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        if not chats:
            return []
        texts = [
            self.tokenizer.apply_chat_template(messages(chat), tokenize=False, add_generation_prompt=True)
            for chat in chats
        ]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        return _generate(self.model, inputs, self.tokenizer, self.max_tokens, again)


class VisionLanguageModel(ChatModel):
    """Any AutoModelForImageTextToText; chats are answered one by one, since pictures take most of the memory.

    Args:
        model, processor: loaded.
        name, revision: what they were loaded from.
        max_tokens: maximum length of one answer.
        picture_size: longer side of the picture that the model gets, in pixels.
    """

    def __init__(self, model, processor, name: str, revision: str | None, max_tokens: int, picture_size: int):
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.max_tokens = max_tokens
        self.picture_size = picture_size
        self._identity = identify(name, revision) | {
            "max_tokens": max_tokens,
            "precision": str(model.dtype),
            "picture_size": picture_size,
        }

    @classmethod
    def load(cls, config: VlmConfig) -> Self:
        """Load `describe.vision`. Raises ValueError: no such weights."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        name, revision = config.vision, config.vision_revision
        device = pick_device(config.device)
        try:
            processor = AutoProcessor.from_pretrained(name, revision=revision)
            dtype = getattr(torch, pick_dtype(config.dtype, device))
            model = AutoModelForImageTextToText.from_pretrained(
                name, revision=revision, dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(_not_loaded("vision", name, error)) from error
        return cls(model.to(device), processor, name, revision, config.max_tokens, config.picture_size)

    @property
    def identity(self) -> dict[str, Any]:
        return self._identity

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        return [self._answer(chat, again) for chat in chats]

    def _answer(self, chat: Chat, again: bool) -> str:
        image_part = None
        if chat.picture is not None:
            image_part = {"type": "image", "image": smaller(chat.picture, self.picture_size)}
        inputs = self.processor.apply_chat_template(
            _in_parts(messages(chat, image_part)),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        inputs = inputs.to(self.model.dtype)  # converts the pixels; token ids stay integers
        return _generate(self.model, inputs, self.processor.tokenizer, self.max_tokens, again)[0]


def _in_parts(chat_messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose every content is a list of parts, as chat templates of vision-language models expect them."""
    parts = {m["role"]: m["content"] for m in chat_messages}
    return [
        {"role": role, "content": [{"type": "text", "text": content}] if isinstance(content, str) else content}
        for role, content in parts.items()
    ]


@torch.inference_mode()
def _generate(model, inputs, tokenizer, max_tokens: int, again: bool) -> list[str]:
    """The model's continuation of each input; the inputs are padded on the left."""
    inputs = inputs.to(model.device)
    options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if again:
        options = {"do_sample": True, "temperature": TEMPERATURE}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(SEED)
        ids = model.generate(**inputs, max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id, **options)
    return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _not_loaded(field: str, name: str, error: Exception) -> str:
    reason = one_line(error, 200)
    return (
        f"describe.{field}: no model could be loaded from {name!r}: {reason}; name a folder with its weights, or give "
        "--target_caption"
    )
