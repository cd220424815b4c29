"""The HTTP client for OpenAI-compatible chat endpoints: one rule for retries, waits, limits and errors.

A request is sent again if the server is busy or restarting, the connection is lost, the attempt times out, or the reply
is no chat completion. Before each new attempt it waits for a random time, whose upper limit doubles. If the server
demands a longer wait (Retry-After), all requests wait that long. Other errors are raised at once, because waiting does
not fix them.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import aiohttp

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # HTTP statuses of errors that waiting may fix
LARGEST_REPLY = 1_000_000  # bytes


class EndpointError(Exception):
    """A request got no completion; the message is one line with the beginning of the server's reply. `reason` says the
    same in a few words, to count errors by."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Unavailable(EndpointError):
    """Every attempt met a busy server, a lost connection or a timeout."""


class NoCompletion(EndpointError):
    """Every attempt got a reply with status 200 that is no chat completion."""


class TooLong(EndpointError):
    """The reply is longer than LARGEST_REPLY."""


class Refused(EndpointError):
    """The server refused the request, and waiting does not fix it. `advice` says which setting to change, if the server
    would refuse every request; else it is empty."""

    def __init__(self, message: str, reason: str, advice: str):
        super().__init__(message, reason)
        self.advice = advice


class SettingNames(NamedTuple):
    """The names that the settings have for the user; `Refused.advice` contains them."""

    key: str
    address: str
    model: str


@dataclass(frozen=True)
class Completion:
    """The first choice of a chat completion: its text, if it has one, and whether the maximum number of tokens ended
    it; and the names of the model and of the server's configuration (`system_fingerprint`), if the server gives them.
    """

    text: str | None
    cut_off: bool
    model: str | None = None
    fingerprint: str | None = None


class ChatClient:
    """Posts to `{address}/chat/completions`. It belongs to one event loop.

    Args:
        address: base URL of the server, up to and including the version, such as http://127.0.0.1:8000/v1.
        key: sent as a bearer token; None or empty: none is sent.
        concurrency: maximum number of requests that run or wait for their next attempt at the same time.
        timeout, longest_wait: seconds for one attempt, and between two, even if the server demands longer waits.
        attempts: how often a request is sent before it fails, at least 1.
        backoff: upper limit of the random wait after the first attempt, in seconds; doubled after each further one.
    """

    def __init__(
        self,
        address: str,
        key: str | None,
        *,
        concurrency: int,
        timeout: float,
        attempts: int,
        backoff: float,
        longest_wait: float,
        names: SettingNames,
    ):
        self.url = f"{address.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._concurrency, self._timeout, self._attempts = concurrency, timeout, attempts
        self._backoff, self._longest_wait = backoff, longest_wait
        self._advice = {
            401: f"set {names.key}",
            403: f"set {names.key}",
            404: f"correct {names.address} or {names.model}",
            405: f"correct {names.address}",
        }
        self._free = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._resume = 0.0  # by the event loop's clock: no request is sent earlier, because the server demanded a wait

    async def complete(self, make_body: Callable[[], dict[str, Any]]) -> Completion:
        """Send a request, again if needed, and return its completion.

        Args:
            make_body: returns the request's body: model, messages, and how to sample. It is called when the request's
                turn comes, so that only `concurrency` bodies, with their pictures, are in memory.

        Raises:
            Unavailable, NoCompletion: the last error, after all attempts.
            TooLong, Refused: at once.
        """
        clock = asyncio.get_running_loop().time
        async with self._free:
            body = make_body()
            for attempt in count(1):
                pause = self._resume - clock()
                if pause > 0:
                    await asyncio.sleep(pause + random.uniform(0, self._backoff))
                try:
                    return await self._attempt(body)
                except (Unavailable, NoCompletion):
                    if attempt == self._attempts:
                        raise
                wait = random.uniform(0, self._backoff * 2 ** (attempt - 1))
                await asyncio.sleep(min(wait, self._longest_wait))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=self._concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
            )
        return self._session

    async def _attempt(self, body: dict[str, Any]) -> Completion:
        import aiohttp

        try:
            async with self._open_session().post(self.url, json=body) as response:
                if response.status != 200:
                    raise await self._error(response)
                reply = bytearray()
                async for chunk in response.content.iter_chunked(2**16):
                    reply += chunk
                    if len(reply) > LARGEST_REPLY:
                        raise TooLong("the reply is too long", "too long")
        except TimeoutError:
            reason = f"no answer within {self._timeout:g} s"
            raise Unavailable(reason, reason) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_line(f"{type(error).__name__}: {error}"), "no connection") from None
        return _completion(reply)

    async def _error(self, response: aiohttp.ClientResponse) -> EndpointError:
        """The error that a status other than 200 means; a wait that the server demands is recorded."""
        if response.status in PASSING and (wait := _retry_after(response.headers)):
            resume = asyncio.get_running_loop().time() + min(wait, self._longest_wait)
            self._resume = max(self._resume, resume)
        detail = _line((await response.content.read(300)).decode(errors="replace"))
        reason = f"status {response.status}"
        message = f"{reason} {response.reason}".rstrip() + (f": {detail}" if detail else "")
        if response.status in PASSING:
            return Unavailable(message, reason)
        return Refused(message, reason, self._advice.get(response.status, ""))


def _completion(reply: bytes | bytearray) -> Completion:
    try:
        body = json.loads(reply)
    except (ValueError, RecursionError):
        raise NoCompletion("not JSON", "not JSON") from None
    try:
        choice = body["choices"][0]
        text, cut_off = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        raise NoCompletion("not a chat completion", "not a chat completion") from None
    text, model, fingerprint = (
        value if isinstance(value, str) else None for value in (text, body.get("model"), body.get("system_fingerprint"))
    )
    return Completion(text, cut_off, model, fingerprint)


def _retry_after(headers: Mapping[str, str]) -> float:
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


def _line(text: str) -> str:
    return " ".join(text.split())[:150]
