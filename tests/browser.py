"""A server with the microworld's page and a browser to open it, for the tests that need both."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",  # a camera that shows a test picture
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60_000  # milliseconds; a busy machine is slow, not broken


@contextlib.contextmanager
def served(*arguments: str, patience: float = 240) -> Iterator[str]:
    """The address of a page that `app.py` serves in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port), *arguments], cwd=ROOT, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + patience
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, "the page did not come up"
                time.sleep(0.2)
        _ask_once(address)
        yield address
    finally:
        server.terminate()
        server.wait(120)


def _ask_once(address: str) -> None:
    """Wait until the models are loaded, which a first request would wait for."""
    from gradio_client import Client, handle_file

    picture = handle_file(str(ROOT / "docs" / "examples" / "square.png"))
    Client(address, verbose=False).predict(image=picture, instruction="make the blue square red", api_name="/edit")


@contextlib.contextmanager
def chromium() -> Iterator:
    """A Chromium: Debian's, or the one that playwright installed; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
    with playwright.sync_playwright() as started:
        own = shutil.which("chromium") or started.chromium.executable_path
        if not Path(own).exists():
            pytest.skip("no Chromium on this machine: apt-get install chromium, or playwright install chromium")
        browser = started.chromium.launch(executable_path=own, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
