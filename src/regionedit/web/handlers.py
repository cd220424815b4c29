"""What every function behind the page does with an error: one sentence for the person, the rest for the log."""

from __future__ import annotations

import functools
import html
import inspect
import logging

log = logging.getLogger(__name__)

MODELS = {"concurrency_id": "models", "concurrency_limit": 1, "api_visibility": "private"}
"""Of events that use a model: they wait for each other in one queue."""

AT_ONCE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of events that use none and cannot fail: the page shows errors of queued events only."""

QUICK = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
"""Of events that use none and can fail."""

SESSION = 3600
"""Seconds that a session's pictures stay in memory after they were last changed."""

UNEXPECTED = "Something went wrong on the server, which has noted it; the picture and the settings are still here."


def told(function):
    """The function, or generator function, with errors as a message of the page that can hold no markup."""
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
