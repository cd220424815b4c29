"""A question to a chat model, and the interface of every chat model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


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
