"""A writer that calls an OpenAI-compatible endpoint: concurrent requests with retries, time-outs and size limits."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, Self

from instruction_schema import LONGEST_ANSWER, Edit, Target
from write_config import SamplingConfig, WriteConfig
from writer import CUT_OFF, TRANSIENT, Answer, Ask, Writer, WriterError

_RETRY_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_FATAL_STATUSES = {
    401: "set OPENAI_API_KEY",
    403: "set OPENAI_API_KEY",
    404: "correct endpoint.url or model",
    405: "correct endpoint.url",
}
_REFUSED = "refused by the endpoint"
_LARGEST = 1_000_000  # bytes of a response
_MANY = 8  # if at least this many requests all fail, the endpoint itself is at fault


class EndpointWriter(Writer):
    """Posts to `{url}/chat/completions`."""

    @classmethod
    def load(cls, config: WriteConfig) -> Self:
        if not config.endpoint.url.startswith(("http://", "https://")):
            raise ValueError(f"endpoint.url: {config.endpoint.url!r} is not an address; try http://127.0.0.1:8000/v1")
        if config.endpoint.concurrency < 1 or config.endpoint.timeout <= 0 or config.endpoint.retries < 0:
            raise ValueError("endpoint: concurrency must be at least 1, timeout above 0, retries not negative")
        return cls(config)

    @classmethod
    def identity(cls, config: WriteConfig) -> dict[str, Any]:
        return {"model": config.model, "revision": config.revision, "response_format": config.endpoint.response_format}

    def __init__(self, config: WriteConfig):
        self._config, self._endpoint = config, config.endpoint
        self._runner = asyncio.Runner()
        self._session = None
        self._resume = 0.0  # in the event loop's time: no request is sent before it, because the server asked to wait
        schema = (Edit if config.source == "captions" else Target).model_json_schema()
        self._format = {
            "json_schema": {"type": "json_schema", "json_schema": {"name": "edit", "schema": schema}},
            "json_object": {"type": "json_object"},
            "none": None,
        }[config.endpoint.response_format]

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        try:
            answers = self._runner.run(self._write(asks))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        failures = [answer.failure for answer in answers if answer.failure.startswith((TRANSIENT, _REFUSED))]
        if len(asks) == len(failures) >= _MANY and not asks[0].attempt:
            raise WriterError(f"{self._endpoint.url}: none of {len(asks)} requests succeeded ({failures[0]})")
        return answers

    def close(self) -> None:
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    async def _write(self, asks: Sequence[Ask]) -> list[Answer]:
        import aiohttp

        if self._session is None:
            key = os.environ.get("OPENAI_API_KEY")
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._endpoint.timeout),
                connector=aiohttp.TCPConnector(limit=self._endpoint.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Authorization": f"Bearer {key}"} if key else {},
            )
        answers: list[Answer] = [Answer()] * len(asks)
        todo = iter(enumerate(asks))

        async def work() -> None:
            for place, ask in todo:
                answers[place] = await self._answer_with_retries(ask)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._endpoint.concurrency, len(asks))):
                group.create_task(work())
        return answers

    async def _answer_with_retries(self, ask: Ask) -> Answer:
        """One answer; the request is repeated while the endpoint is at fault."""
        clock = self._runner.get_loop().time
        for attempt in count():
            pause = self._resume - clock()
            if pause > 0:
                await asyncio.sleep(pause + random.uniform(0, self._endpoint.backoff))
            answer, wait = await self._attempt(ask)
            if not answer.failure.startswith(TRANSIENT) or attempt == self._endpoint.retries:
                return answer
            if wait:
                self._resume = max(self._resume, clock() + min(wait, self._endpoint.longest_wait))
            backoff = random.uniform(0, self._endpoint.backoff * 2**attempt)
            await asyncio.sleep(min(backoff, self._endpoint.longest_wait))

    async def _attempt(self, ask: Ask) -> tuple[Answer, float]:
        """One attempt: (answer, seconds to wait according to the server)."""
        import aiohttp

        try:
            url = f"{self._endpoint.url.rstrip('/')}/chat/completions"
            async with self._session.post(url, json=self._body(ask)) as response:
                if response.status in _FATAL_STATUSES:
                    raise WriterError(f"{url}: {response.status} {response.reason}; {_FATAL_STATUSES[response.status]}")
                if response.status in _RETRY_STATUSES:
                    return Answer(failure=f"{TRANSIENT}status {response.status}"), _wait(response.headers)
                if response.status != 200:
                    return Answer(failure=f"{_REFUSED} (status {response.status})"), 0.0
                data = bytearray()
                async for chunk in response.content.iter_chunked(2**16):
                    data += chunk
                    if len(data) > _LARGEST:
                        return Answer(failure="answer: too long"), 0.0
                return _text(json.loads(data)), 0.0
        except TimeoutError:
            return Answer(failure=f"{TRANSIENT}no answer within {self._endpoint.timeout:g} s"), 0.0
        except (aiohttp.ClientError, OSError):
            return Answer(failure=f"{TRANSIENT}no connection"), 0.0
        except (ValueError, RecursionError):
            return Answer(failure=f"{TRANSIENT}not JSON"), 0.0

    def _body(self, ask: Ask) -> dict[str, Any]:
        sampling: SamplingConfig = self._config.sampling
        body = {
            "model": self._config.model,
            "messages": ask.messages,
            "temperature": sampling.retry_temperature if ask.attempt else sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": ask.seed,
        }
        return body | ({"response_format": self._format} if self._format else {})


def _text(body: Any) -> Answer:
    """The first choice of a chat completion."""
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return Answer(failure=f"{TRANSIENT}not a chat completion")
    if not isinstance(text, str):
        return Answer(failure="answer: none")
    return Answer(text[: LONGEST_ANSWER + 1], CUT_OFF if choice.get("finish_reason") == "length" else "")


def _wait(headers: Any) -> float:
    """Seconds of a Retry-After header; a date in it is compared with the server's own clock (its Date header)."""
    retry_after = headers.get("Retry-After", "")
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - parsedate_to_datetime(headers["Date"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0
