"""The functions behind the page's endpoints, without a server."""

from collections.abc import Callable

import pytest

from regionedit.config import AppConfig
from regionedit.web.compare_tab import Comparer
from regionedit.web.studio import Studio


def endpoints(
    config: AppConfig, uploads, patch: pytest.MonkeyPatch, comparer=None
) -> tuple[Studio, dict[str, Callable]]:
    """The studio, and name -> function of each endpoint; `uploads` is the folder of uploaded files.

    The functions take their arguments by place, as Gradio passes them, and yield once.
    """
    import gradio as gr

    from regionedit.web.api import api

    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    made: dict[str, Callable] = {}
    patch.setattr(gr, "api", lambda function, api_name, **_: made.update({api_name: function}))
    studio = Studio(config)
    api(studio, Comparer(studio))
    return studio, made
