"""Builds the page from its tabs and starts the server with its limits."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from hmac import compare_digest
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from regionedit.request_files import read_requests
from regionedit.web.uploads import Guard

if TYPE_CHECKING:
    from regionedit.config import AppConfig

TITLE = "regionedit: say what to change, see where, change nothing else"
PHONE = "<style>@media (max-width: 640px) { .gradio-container .app { padding: 8px 10px !important; } }</style>"
"""Margins on telephones, in the head: rules in page.css do not reach the element around all components."""


def make_page(config: AppConfig, jobs: Path):
    """Build Gradio's Blocks and queue, and start loading the models in a thread; nothing is served yet.

    Args:
        jobs: private folder for the files of batches.

    Raises ValueError: the configuration names something that does not exist.
    """
    import gradio as gr

    from regionedit.web import edit_tab
    from regionedit.web.api import api
    from regionedit.web.batch_tab import batch_tab
    from regionedit.web.compare_tab import Comparer, compare_tab
    from regionedit.web.edit_layout import EditLayout
    from regionedit.web.handlers import SESSION
    from regionedit.web.history_tab import history_tab
    from regionedit.web.studio import Studio

    studio = Studio(config)
    comparer = Comparer(studio)
    print(f"the page computes {studio.editor.computes}", flush=True)
    with gr.Blocks(title="regionedit", analytics_enabled=False, delete_cache=(60, SESSION)) as page:
        gr.HTML(f"<h1>{TITLE}</h1>", elem_id="title")
        with gr.Tabs() as tabs:
            with gr.Tab("Edit", id="edit"):
                layout = EditLayout(config, _examples(config))
                edit = edit_tab.connect(layout, studio)
            with gr.Tab("Batch"):
                batch_tab(studio, layout.form.values(), jobs)
            with gr.Tab("Compare"):
                compare_tab(comparer, layout, edit)
            with gr.Tab("History"):
                history_tab(studio, layout, edit, tabs)
        api(studio, comparer)
    files = studio.uploads.files
    page.temp_file_sets = [files if one is page.upload_file_set else one for one in page.temp_file_sets]
    page.upload_file_set = files
    studio.uploads.examples = {file for block in page.blocks.values() for file in block.keep_in_cache}
    studio.uploads.sweep_for_ever()
    page.queue(max_size=config.queue, default_concurrency_limit=4)
    threading.Thread(target=studio.warm_up, daemon=True).start()
    return page


def serve(config: AppConfig) -> None:
    """Serve the page until the process is stopped, then delete all uploads.

    Raises:
        ValueError: the configuration names something that does not exist.
        OSError: the port is taken.
    """
    password = _password(config)
    folder = Path(tempfile.mkdtemp(prefix="regionedit-"))  # readable by this user alone
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "served")
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # for Gradio's dashboard, which is off
    try:
        make_page(config, folder / "jobs").launch(**launch_settings(config, password))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("GRADIO_TEMP_DIR", None)  # Gradio must not create the folder again in this process


def launch_settings(config: AppConfig, password: str | None) -> dict:
    """The arguments for Gradio's `launch`."""
    import gradio as gr
    from starlette.middleware import Middleware

    return {
        "app_kwargs": {"middleware": [Middleware(Guard)]},
        "server_name": None if "SPACE_ID" in os.environ else config.host,  # a Space sets the address itself
        "server_port": config.port or None,
        "share": config.share,
        "auth": (lambda _name, given: compare_digest(given.encode(), password.encode())) if password else None,
        "max_file_size": f"{config.max_megabytes}mb",
        "state_session_capacity": 64,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": ["api"],
        "theme": gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "head": PHONE,
        "css": resources.files(__package__).joinpath("page.css").read_text(),
        "pwa": False,
        "ssr_mode": False,
        "mcp_server": False,
    }


def _password(config: AppConfig) -> str | None:
    if config.password_variable is None:
        return None
    password = os.environ.get(config.password_variable, "")
    if not password:
        raise ValueError(f"password_variable: the environment variable {config.password_variable} is empty or not set")
    return password


def _examples(config: AppConfig) -> list[list[str]]:
    if config.examples is None:
        return []
    requests = read_requests(Path(config.examples))
    return [[str(request.image), "; ".join(i.text for i in request.instructions)] for request in requests]
