"""A vision-language model behind an OpenAI-compatible HTTP endpoint."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

from regionedit.chat_client import ChatClient, NoCompletion, Refused, SettingNames, TooLong, Unavailable
from regionedit.describe.chat import Chat, ChatModel, messages
from regionedit.images import png, smaller

if TYPE_CHECKING:
    from regionedit.config import EndpointConfig

BACKOFF, LONGEST_WAIT = 0.75, 30.0  # seconds: upper limit of the first wait, and longest wait between two attempts
TEMPERATURE, SEED = 0.7, 0  # for the second attempt after an answer that cannot be used


class ChatEndpoint(ChatModel):
    """Sends questions to `POST {address}/chat/completions`.

    Args:
        address: address of the server up to /v1.
        model: the server's name for the model.
        key: sent as a bearer token, or None.
        max_tokens: maximum length of one answer.
        picture_size: longer side of the picture that is sent, in pixels; it is sent as a PNG data URL.
        concurrency: maximum number of questions that wait for their answers at the same time.
        timeout: seconds for one attempt.
        attempts: how often a question is sent before it fails.
    """

    def __init__(
        self,
        address: str,
        model: str,
        key: str | None = None,
        max_tokens: int = 256,
        picture_size: int = 768,
        concurrency: int = 8,
        timeout: float = 60.0,
        attempts: int = 5,
    ):
        self.address = address.rstrip("/")
        self.model = model
        self.key = key
        self.max_tokens = max_tokens
        self.picture_size = picture_size
        self.concurrency = concurrency
        self.timeout = timeout
        self.attempts = attempts

    @classmethod
    def load(cls, config: EndpointConfig) -> Self:
        return cls(
            config.endpoint,
            config.endpoint_model,
            os.environ[config.api_key_variable] if config.api_key_variable else None,
            config.max_tokens,
            config.picture_size,
            config.concurrency,
            config.timeout,
            config.attempts,
        )

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.model,
            "address": f"{self.address}/chat/completions",
            "max_tokens": self.max_tokens,
            "picture_size": self.picture_size,
        }

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        with ThreadPoolExecutor(1) as thread:  # a separate thread: the caller may run in an event loop
            return thread.submit(lambda: asyncio.run(self._answer_all(chats, again))).result()

    async def _answer_all(self, chats: Sequence[Chat], again: bool) -> list[str | ValueError]:
        client = ChatClient(
            self.address,
            self.key,
            concurrency=self.concurrency,
            timeout=self.timeout,
            attempts=self.attempts,
            backoff=BACKOFF,
            longest_wait=LONGEST_WAIT,
            names=SettingNames("describe.api_key_variable", "describe.endpoint", "describe.endpoint_model"),
        )
        async with aclosing(client):
            return await asyncio.gather(*(self._answer(client, chat, again) for chat in chats))

    async def _answer(self, client: ChatClient, chat: Chat, again: bool) -> str | ValueError:
        """A reply without a text is an empty answer, and `ask` sends the question again."""
        try:
            return (await client.complete(lambda: self._body(chat, again))).text or ""
        except (NoCompletion, TooLong):
            return ""
        except Unavailable as error:
            return ValueError(f"describe.endpoint: {client.url}: given up after {self.attempts} attempts: {error}")
        except Refused as error:
            advice = f"; {error.advice}" if error.advice else ""
            return ValueError(f"describe.endpoint: {client.url}: {error}{advice}")

    def _body(self, chat: Chat, again: bool) -> dict[str, Any]:
        image_part = None
        if chat.picture is not None:
            data = base64.b64encode(png(smaller(chat.picture, self.picture_size))).decode()
            image_part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        sampling = {"temperature": TEMPERATURE, "seed": SEED} if again else {"temperature": 0}
        return {"model": self.model, "messages": messages(chat, image_part), "max_tokens": self.max_tokens} | sampling
