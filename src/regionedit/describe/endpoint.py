"""A vision-language model behind an OpenAI-compatible HTTP endpoint."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from regionedit.chat_client import ChatClient, NoCompletion, Refused, SettingNames, TooLong, Unavailable
from regionedit.describe.chat import Chat, ChatModel, messages
from regionedit.images import data_uri, png, smaller

if TYPE_CHECKING:
    from regionedit.config import ChatEndpointConfig, EndpointConfig, VlmBoxConfig

BACKOFF, LONGEST_WAIT = 0.75, 30.0  # seconds: upper limit of the first wait, and longest wait between two attempts
TEMPERATURE, SEED = 0.7, 0  # for the second attempt after an answer that cannot be used


def require_endpoint(config: ChatEndpointConfig, section: str) -> None:
    """Check the settings in this section of the configuration; the server is not called. Raises ValueError."""
    if not config.endpoint.startswith(("http://", "https://")):
        raise ValueError(
            f"{section}.endpoint: {config.endpoint!r} is no address; give one such as http://127.0.0.1:8000/v1"
        )
    if not config.endpoint_model:
        raise ValueError(f"{section}.endpoint_model: empty; name one of the endpoint's models")
    if config.api_key_variable and not os.environ.get(config.api_key_variable):
        raise ValueError(f"{section}.api_key_variable: the environment has no {config.api_key_variable}; export it")


class ChatEndpoint(ChatModel):
    """Sends questions to `POST {endpoint}/chat/completions`, with pictures as PNG data URLs.

    Args:
        section: section of the configuration with these settings; errors name its fields.
    """

    def __init__(self, config: EndpointConfig | VlmBoxConfig, section: str = "describe"):
        self.config = config
        self.section = section
        self.key = os.environ[config.api_key_variable] if config.api_key_variable else None
        self.identity = {
            "name": config.endpoint_model,
            "address": f"{config.endpoint.rstrip('/')}/chat/completions",
            "max_tokens": config.max_tokens,
            "picture_size": config.picture_size,
        }

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        with ThreadPoolExecutor(1) as thread:  # a separate thread: the caller may run in an event loop
            return thread.submit(lambda: asyncio.run(self._answer_all(chats, again))).result()

    async def _answer_all(self, chats: Sequence[Chat], again: bool) -> list[str | ValueError]:
        client = ChatClient(
            self.config.endpoint,
            self.key,
            concurrency=self.config.concurrency,
            timeout=self.config.timeout,
            attempts=self.config.attempts,
            backoff=BACKOFF,
            longest_wait=LONGEST_WAIT,
            names=SettingNames(*(f"{self.section}.{n}" for n in ("api_key_variable", "endpoint", "endpoint_model"))),
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
            return ValueError(
                f"{self.section}.endpoint: {client.url}: given up after {self.config.attempts} attempts: {error}"
            )
        except Refused as error:
            advice = f"; {error.advice}" if error.advice else ""
            return ValueError(f"{self.section}.endpoint: {client.url}: {error}{advice}")

    def _body(self, chat: Chat, again: bool) -> dict[str, Any]:
        image_part = None
        if chat.picture is not None:
            url = data_uri(png(smaller(chat.picture, self.config.picture_size)))
            image_part = {"type": "image_url", "image_url": {"url": url}}
        sampling = {"temperature": TEMPERATURE, "seed": SEED} if again else {"temperature": 0}
        question = {"model": self.config.endpoint_model, "messages": messages(chat, image_part)}
        return question | {"max_tokens": self.config.max_tokens} | sampling
