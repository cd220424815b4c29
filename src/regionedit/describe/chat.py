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
    """One question.

    Args:
        system: the task, and the form of the answer.
        user: the question itself.
        picture: the picture that the question is about, RGB, or None.
    """

    system: str
    user: str
    picture: Image | None = None


class ChatModel(ABC):
    """A model that answers chats."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Plain values that distinguish this model from any other that could answer differently."""

    @abstractmethod
    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        """An answer to each chat, or an error.

        Args:
            again: the first answer could not be used: sample the answer with a fixed seed instead of greedy decoding.
        """


def messages(chat: Chat, picture: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A chat in the message format of chat templates and endpoints.

    Args:
        picture: the content part with the chat's picture, in the format of the model or server.
    """
    question: str | list = chat.user
    if picture is not None:
        question = [picture, {"type": "text", "text": chat.user}]
    return [{"role": "system", "content": chat.system}, {"role": "user", "content": question}]
