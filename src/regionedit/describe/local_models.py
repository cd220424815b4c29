"""Chat models in this process, run by transformers: language models and vision-language models.

Answers are decoded greedily; those of a second attempt are sampled with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from regionedit.command_line import one_line
from regionedit.describe.chat import Chat, ChatModel, messages
from regionedit.device import pick_device, pick_dtype
from regionedit.images import smaller
from regionedit.provenance import identify

if TYPE_CHECKING:
    from regionedit.config import TwoStageConfig, VlmConfig

TEMPERATURE, SEED = 0.7, 0  # of a second attempt


class LocalModel(ChatModel):
    """A model and its tokenizer or processor, named by two settings of `describe`: `field` and its revision.

    Raises:
        ValueError: nothing could be loaded; the message names the setting.
    """

    field: ClassVar[str]
    model_class: ClassVar[str]
    reader_class: ClassVar[str]

    def __init__(self, config: VlmConfig):
        import transformers

        name, revision = getattr(config, self.field), getattr(config, f"{self.field}_revision")
        device = pick_device(config.device)
        dtype = getattr(torch, pick_dtype(config.dtype, device))
        try:
            self.reader = getattr(transformers, self.reader_class).from_pretrained(name, revision=revision)
            model = getattr(transformers, self.model_class).from_pretrained(
                name, revision=revision, dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"describe.{self.field}: no model could be loaded from {name!r}: {one_line(error, 200)}; name a folder "
                "with its weights, or give --target_caption"
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.config = config
        self.identity = identify(name, revision) | {"max_tokens": config.max_tokens, "precision": str(model.dtype)}


class LanguageModel(LocalModel):
    """`describe.language`, any AutoModelForCausalLM whose tokenizer has a chat template; it answers chats together."""

    field = "language"
    model_class, reader_class = "AutoModelForCausalLM", "AutoTokenizer"

    def __init__(self, config: TwoStageConfig):
        super().__init__(config)
        self.reader.padding_side = "left"
        if not self.reader.chat_template:
            raise ValueError(
                f"describe.language: {config.language} has no chat template; use an instruction-tuned model"
            )

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        if not chats:
            return []
        texts = [
            self.reader.apply_chat_template(messages(chat), tokenize=False, add_generation_prompt=True)
            for chat in chats
        ]
        inputs = self.reader(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        return _generate(self.model, inputs, self.reader, self.config.max_tokens, again)


class VisionLanguageModel(LocalModel):
    """`describe.vision`, any AutoModelForImageTextToText; it answers chats one by one, since pictures take most of the
    memory."""

    field = "vision"
    model_class, reader_class = "AutoModelForImageTextToText", "AutoProcessor"

    def __init__(self, config: VlmConfig):
        super().__init__(config)
        self.identity["picture_size"] = config.picture_size

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        return [self._answer(chat, again) for chat in chats]

    def _answer(self, chat: Chat, again: bool) -> str:
        image_part = None
        if chat.picture is not None:
            image_part = {"type": "image", "image": smaller(chat.picture, self.config.picture_size)}
        inputs = self.reader.apply_chat_template(
            _in_parts(messages(chat, image_part)),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        inputs = inputs.to(self.model.dtype)  # converts the pixels; token ids stay integers
        return _generate(self.model, inputs, self.reader.tokenizer, self.config.max_tokens, again)[0]


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
