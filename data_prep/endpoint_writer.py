"""A writer that calls an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp or a hosted service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Self

from instruction_schema import LONGEST_ANSWER, Edit, Target
from write_config import SamplingConfig, WriteConfig
from writers import CUT_OFF, TRANSIENT, Answer, Ask, Writer, WriterError

from regionedit.chat_client import ChatClient, NoCompletion, Refused, SettingNames, TooLong, Unavailable

_REFUSED = "refused by the endpoint"
_MANY = 8  # if at least this many requests all fail, the endpoint itself is at fault


class EndpointWriter(Writer):
    """Sends every request of a shard at once, `endpoint.concurrency` at the same time."""

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
        self._config, endpoint = config, config.endpoint
        self._runner = asyncio.Runner()
        self._client = ChatClient(
            endpoint.url,
            os.environ.get("OPENAI_API_KEY"),
            concurrency=endpoint.concurrency,
            timeout=endpoint.timeout,
            attempts=endpoint.retries + 1,
            backoff=endpoint.backoff,
            longest_wait=endpoint.longest_wait,
            names=SettingNames("OPENAI_API_KEY", "endpoint.url", "model"),
        )
        schema = (Edit if config.source == "captions" else Target).model_json_schema()
        self._format = {
            "json_schema": {"type": "json_schema", "json_schema": {"name": "edit", "schema": schema}},
            "json_object": {"type": "json_object"},
            "none": None,
        }[endpoint.response_format]

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        try:
            answers = self._runner.run(self._write(asks))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        failures = [answer.failure for answer in answers if answer.failure.startswith((TRANSIENT, _REFUSED))]
        if len(asks) == len(failures) >= _MANY and not asks[0].attempt:
            raise WriterError(f"{self._client.url}: none of {len(asks)} requests succeeded ({failures[0]})")
        return answers

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _write(self, asks: Sequence[Ask]) -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._answer(ask)) for ask in asks]
        return [task.result() for task in tasks]

    async def _answer(self, ask: Ask) -> Answer:
        try:
            completion = await self._client.complete(lambda: self._body(ask))
        except Refused as error:
            if error.advice:
                raise WriterError(f"{self._client.url}: {error}; {error.advice}") from None
            return Answer(failure=f"{_REFUSED} ({error.reason})")
        except TooLong as error:
            return Answer(failure=f"answer: {error.reason}")
        except (Unavailable, NoCompletion) as error:
            return Answer(failure=f"{TRANSIENT}{error.reason}")
        if completion.text is None:
            return Answer(failure="answer: none")
        return Answer(completion.text[: LONGEST_ANSWER + 1], CUT_OFF if completion.cut_off else "")

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
