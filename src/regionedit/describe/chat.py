"""What is asked of a model that answers in words, and what every such model promises."""

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
        system: what the model is to do, and the form of its answer.
        user: the question itself.
        picture: that it is about, RGB, or None.
    """

    system: str
    user: str
    picture: Image | None = None


class ChatModel(ABC):
    """A model that answers chats."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Plain values that tell this model from any other that could answer differently."""

    @abstractmethod
    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        """An answer to each chat, or why there is none.

        Args:
            again: the first answer was of no use: instead of the likeliest words others may be drawn, by a fixed seed.
        """


def messages(chat: Chat, picture: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A chat in the form that chat templates and endpoints share.

    Args:
        picture: the content part that stands for the chat's picture, in the reader's own form.
    """
    question: str | list = chat.user
    if picture is not None:
        question = [picture, {"type": "text", "text": chat.user}]
    return [{"role": "system", "content": chat.system}, {"role": "user", "content": question}]
