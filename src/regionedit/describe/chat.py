"""Questions to chat models, from the text files of prompts/, and the interface of every chat model."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = Path(__file__).with_name("prompts")
BETWEEN = "\n---\n"
JOINED = "; "  # between several instructions


@dataclass(frozen=True)
class Chat:
    """One question: the task and the form of the answer, the question itself, and the RGB picture that it is about."""

    system: str
    user: str
    picture: Image | None = None


class ChatModel(ABC):
    """A model that answers chats.

    Attributes:
        identity: plain values that distinguish it from any other model that could answer differently.
    """

    identity: dict[str, Any]

    @abstractmethod
    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        """An answer to each chat, or an error.

        Args:
            again: the first answer could not be used: sample the answer with a fixed seed instead of greedy decoding.
        """


def messages(chat: Chat, picture: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A chat in the message format of chat templates and endpoints; `picture` is the content part with its picture."""
    question = chat.user if picture is None else [picture, {"type": "text", "text": chat.user}]
    return [{"role": "system", "content": chat.system}, {"role": "user", "content": question}]


@dataclass(frozen=True)
class Prompt:
    """The model's task, the question with placeholders such as `$caption`, and the hash of their file: its version."""

    system: str
    user: str
    sha256: str

    def chat(self, picture: Image | None = None, **words: str) -> Chat:
        """The question with `words` filled in; placeholders inside the words themselves are not expanded."""
        return Chat(self.system, Template(self.user).substitute(words), picture)


@functools.cache
def prompt(name: str) -> Prompt:
    """The prompt `name`.txt: the system text above a line `---`, the question below it."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    system, user = text.rstrip("\n").split(BETWEEN)
    return Prompt(system, user, hashlib.sha256(text.encode()).hexdigest())
