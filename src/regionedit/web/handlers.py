"""How the page's event handlers run and report progress and errors: one sentence for the user, the rest in the log."""

from __future__ import annotations

import functools
import html
import inspect
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, get_origin

from regionedit.command_line import one_line

log = logging.getLogger(__name__)

MODELS = {"concurrency_id": "models", "concurrency_limit": 1, "api_visibility": "private"}
"""Arguments of events that use a model: they share one queue and run one at a time."""

AT_ONCE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Arguments of events that use no model and cannot fail: unqueued, and Gradio shows errors of queued events only."""

QUICK = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
"""Arguments of events that use no model and can fail."""

SESSION = 3600
"""Seconds from the last change of a session's data to its deletion from memory."""

UNEXPECTED = "The server had an unexpected error and logged it; your picture and settings are still here."


def errors_shown(function):
    """Wrap a function or generator function: it shows errors as messages on the page, with markup escaped."""
    if not inspect.isgeneratorfunction(function):
        return _errors_as_messages(function.__name__)(function)

    @functools.wraps(function)
    def wrapped(*given):
        with _errors_as_messages(function.__name__):
            yield from function(*given)

    return wrapped


def typed(function):
    """Wrap an endpoint's generator function: it refuses an argument that is not the text, number or list that its
    annotation asks for. Gradio passes on whatever JSON a program sends."""
    kinds = {str: (str, "a text"), int: (Real, "a number"), float: (Real, "a number"), list: (list, "a list")}
    wanted = {name: kinds.get(get_origin(kind) or kind) for name, kind in inspect.get_annotations(function).items()}

    @functools.wraps(function)
    def wrapped(*given):
        for (name, kind), value in zip(wanted.items(), given, strict=False):
            if kind and (not isinstance(value, kind[0]) or isinstance(value, bool)):
                raise ValueError(f"{name}: {str(value)[:40]!r} is not {kind[1]}")
        yield from function(*given)

    return wrapped


@contextmanager
def _errors_as_messages(handler: str) -> Iterator[None]:
    import gradio as gr

    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        if isinstance(error, ValueError):
            sentence = one_line(error, 500)
        else:
            log.exception("%s failed", handler)
            sentence = UNEXPECTED
        escaped = html.escape(sentence, quote=False)
        raise gr.Error(escaped, title="That did not work", print_exception=False) from None


class Stopped(Exception):
    """Raised in the function when its iterator was closed. Not a ValueError, which would look like a failed edit."""


def streamed(work: Callable[[Callable[[Any], None]], Any]) -> Iterator[Any]:
    """Run `work(report)`; yield what it passes to `report`, and its return value last.

    A slow consumer gets only the latest report. After the iterator is closed, the next `report` raises `Stopped`.

    Raises Exception: any exception of `work`.
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
