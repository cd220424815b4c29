"""Work that tells of its steps, as an iterator: it runs in a thread of its own and stops when nobody listens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Stopped(Exception):
    """Raised inside the work when whoever listened has gone. No ValueError: it must not look like a failed edit."""


def streamed(work: Callable[[Callable[[Any], None]], Any]) -> Iterator[Any]:
    """Run `work(tell)` and give what it tells; its return value comes last.

    Only the latest thing told is kept for a slow listener. Closing the iterator makes the next `tell` raise `Stopped`.

    Raises:
        Exception: whatever the work raised.
    """
    told: queue.Queue[tuple[str, Any]] = queue.Queue()
    stop = threading.Event()

    def tell(news: Any) -> None:
        if stop.is_set():
            raise Stopped
        told.put(("news", news))

    def run() -> None:
        try:
            told.put(("done", work(tell)))
        except Stopped:
            pass
        except Exception as error:  # carried to whoever listens, who alone can say it to a person
            told.put(("failed", error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = told.get()
            while kind == "news" and not told.empty():
                kind, value = told.get()
            if kind == "failed":
                raise value
            yield value
            if kind == "done":
                return
    finally:
        stop.set()
