"""Runs a function in a thread and yields its progress; closing the iterator stops the function."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Stopped(Exception):
    """Raised in the function when its iterator was closed. Not a ValueError, which would look like a failed edit."""


def streamed(work: Callable[[Callable[[Any], None]], Any]) -> Iterator[Any]:
    """Run `work(report)`; yield what it passes to `report`, and its return value last.

    A slow consumer gets only the latest report. After the iterator is closed, the next `report` raises `Stopped`.

    Raises:
        Exception: any exception of `work`.
    """
    messages: queue.Queue[tuple[str, Any]] = queue.Queue()
    stop = threading.Event()

    def report(value: Any) -> None:
        if stop.is_set():
            raise Stopped
        messages.put(("report", value))

    def run() -> None:
        try:
            messages.put(("done", work(report)))
        except Stopped:
            pass
        except Exception as error:  # raised again in the consumer, which can show it to the user
            messages.put(("failed", error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = messages.get()
            while kind == "report" and not messages.empty():
                kind, value = messages.get()
            if kind == "failed":
                raise value
            yield value
            if kind == "done":
                return
    finally:
        stop.set()
