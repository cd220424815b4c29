"""How the page's event handlers run, and how they report errors: one sentence for the user, the rest in the log."""

from __future__ import annotations

import functools
import html
import inspect
import logging

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
    import gradio as gr

    def message(error: Exception) -> gr.Error:
        if isinstance(error, gr.Error):
            return error
        if isinstance(error, ValueError):
            sentence = " ".join(str(error).split())[:500]
        else:
            log.exception("%s failed", function.__name__, exc_info=error)
            sentence = UNEXPECTED
        return gr.Error(html.escape(sentence, quote=False), title="That did not work", print_exception=False)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapped(*given):
            try:
                yield from function(*given)
            except Exception as error:
                raise message(error) from None
    else:

        @functools.wraps(function)
        def wrapped(*given):
            try:
                return function(*given)
            except Exception as error:
                raise message(error) from None

    return wrapped
