"""A chat model behind an OpenAI-compatible HTTP endpoint, queried with aiohttp.

If the server is busy or restarting (429, 5xx, no answer at all), the question is sent again after growing waits; errors
that waiting does not fix (a wrong key, an unknown model) are raised at once.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from regionedit.describe.chat import Chat, ChatModel, messages
from regionedit.images import png, smaller

if TYPE_CHECKING:
    import aiohttp

    from regionedit.config import EndpointConfig

PASSING = frozenset({408, 429, 500, 502, 503, 504})  # statuses that may change after a while
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the next attempt; doubled each time
LARGEST_REPLY = 1_000_000  # bytes
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
        self.address = f"{address.rstrip('/')}/chat/completions"
        self.model = model
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
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
            "address": self.address,
            "max_tokens": self.max_tokens,
            "picture_size": self.picture_size,
        }

    def answer(self, chats: Sequence[Chat], again: bool = False) -> list[str | ValueError]:
        with ThreadPoolExecutor(1) as thread:  # a separate thread: the caller may run in an event loop
            return thread.submit(lambda: asyncio.run(self._answer_all(chats, again))).result()

    async def _answer_all(self, chats: Sequence[Chat], again: bool) -> list[str | ValueError]:
        import aiohttp

        free = asyncio.Semaphore(self.concurrency)
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        async with aiohttp.ClientSession(timeout=timeout, headers=self.headers) as session:

            async def one(chat: Chat) -> str | ValueError:
                async with free:
                    try:
                        return await self._answer(session, self._body(chat, again))
                    except ValueError as error:
                        return error

            return await asyncio.gather(*map(one, chats))

    def _body(self, chat: Chat, again: bool) -> dict[str, Any]:
        image_part = None
        if chat.picture is not None:
            data = base64.b64encode(png(smaller(chat.picture, self.picture_size))).decode()
            image_part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        sampling = {"temperature": TEMPERATURE, "seed": SEED} if again else {"temperature": 0}
        return {"model": self.model, "messages": messages(chat, image_part), "max_tokens": self.max_tokens} | sampling

    async def _answer(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> str:
        """Send one question, again while the error may be temporary. Raises ValueError: the last error."""
        import aiohttp

        reason = ""
        for attempt in range(self.attempts):
            wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1)
            try:
                async with session.post(self.address, json=body) as response:
                    reply = await response.content.read(LARGEST_REPLY)
                    while not response.content.at_eof() and len(reply) < LARGEST_REPLY:
                        reply += await response.content.read(LARGEST_REPLY - len(reply))
                    if response.status == 200:
                        return _content(reply)
                    reason = f"status {response.status}: {_beginning(reply)}"
                    if response.status not in PASSING:
                        raise ValueError(f"describe.endpoint: {self.address}: {reason}")
                    wait = max(wait, _retry_after(response.headers.get("Retry-After", "")))
            except TimeoutError:
                reason = f"no answer within {self.timeout:g} s"
            except aiohttp.ClientError as error:
                reason = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.attempts:
                await asyncio.sleep(wait)
        raise ValueError(f"describe.endpoint: {self.address}: given up after {self.attempts} attempts: {reason}")


def _content(reply: bytes) -> str:
    """The text of a chat completion. Anything else is read as an empty answer, and `ask` sends the question again."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return content if isinstance(content, str) else ""


def _retry_after(header: str) -> float:
    """Seconds of a Retry-After header; its other form, a date, is ignored."""
    return min(float(header), LONGEST_WAIT) if header.isdecimal() else 0.0


def _beginning(reply: bytes) -> str:
    return " ".join(reply[:300].decode(errors="replace").split())[:150]
