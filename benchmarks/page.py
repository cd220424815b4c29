"""The page compared with the editor alone: cold start, region preview, an edit, a batch.

    python -m benchmarks.page [--pictures 200]

The microworld's models on the CPU. Cold start: seconds from the command until the page answers, and until its models
have found a first region; baseline: infer.py from the command to one finished picture. Preview and edit (20 steps): an
HTTP call by a program, uploads and downloads included; baseline: the editor's own call; medians. Batch: pictures per
second of a batch on the page, results saved and zipped; baseline: `Editor.edit` in a loop that saves nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import medians, options, record, seconds
from regionedit.command_line import load_config
from regionedit.config import AppConfig
from regionedit.editor import Editor
from regionedit.web.batch_tab import edit_all, gather, zipped
from regionedit.web.settings import Settings
from regionedit.web.sketch import Sketch
from regionedit.web.studio import Studio

CONFIG = "configs/app_microworld.yaml"
PICTURE, TEXT = Path("docs/examples/square.png"), "make the blue square red"
REPEATS = 7
STEPS = 20


def median(call) -> float:
    """Median seconds of a call, after one warm-up call."""
    call()
    return medians(lambda: seconds(call), rounds=REPEATS)[0]


def served() -> tuple[float, float, float, float]:
    """Seconds until a page in its own process answers, until its first region, for a preview, and for an edit."""
    from gradio_client import Client, handle_file

    began = time.perf_counter()
    server = subprocess.Popen([sys.executable, "app.py", "--port", "7899"], stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                client = Client("http://127.0.0.1:7899", verbose=False)
                break
            except Exception:  # not listening yet; the client raises errors of its transport
                time.sleep(0.1)
        answers = time.perf_counter() - began
        picture = {"image": handle_file(str(PICTURE)), "instruction": TEXT}
        client.predict(**picture, api_name="/find_region")
        cold = time.perf_counter() - began
        preview = median(lambda: client.predict(**picture, api_name="/find_region"))
        edit = median(lambda: client.predict(**picture, num_inference_steps=STEPS, api_name="/edit"))
        return answers, cold, preview, edit
    finally:
        server.terminate()
        server.wait()


def alone(folder: str) -> float:
    """Seconds of infer.py for one picture, from the command to its end."""
    command = ["infer.py", "--config", "configs/edit_microworld.yaml", "--image", str(PICTURE), "--instruction", TEXT]
    whole = [sys.executable, *command, "--out", folder]
    return seconds(lambda: subprocess.run(whole, check=True, stdout=subprocess.DEVNULL))


def main() -> None:
    count = options(__doc__, pictures=(200, 1, "pictures in the batch")).parse_args().pictures
    with tempfile.TemporaryDirectory() as folder:
        answers, cold, preview, edit = served()
        command = alone(folder)
        record("page_answers", answers, command, "s")
        record("page_cold_start", cold, command, "s")
        config = load_config(AppConfig, CONFIG)
        studio = Studio(replace(config, max_pictures=count))
        studio.warm_up()
        settings = replace(Settings.of(config), instruction=TEXT)
        sketch = Sketch(studio.open(PICTURE))
        own_preview = median(lambda: studio.editor.find(settings.request(sketch.picture)))
        record("page_preview", preview, own_preview, "s")
        slow_config = replace(settings, num_inference_steps=STEPS).configuration(studio.editor.config)
        slow = Editor(slow_config, studio.editor.models)
        own_edit = median(lambda: slow.edit(settings.request(sketch.picture)))
        record(f"page_edit_{STEPS}_steps", edit, own_edit, "s")

        uploads = [(PICTURE, f"picture_{k}.png") for k in range(count)]
        requests = gather(studio, uploads, settings, Path(folder) / "uploads")

        def batch() -> None:
            for _ in edit_all(studio, requests, settings, Path(folder) / "out"):
                pass
            zipped(Path(folder) / "out", Path(folder) / "all.zip")

        batch_rate = count / seconds(batch)
        opened = [request.open(config.max_pixels) for request in requests]
        loop_rate = count / seconds(lambda: [studio.editor.edit(request) for request in opened])
        record(f"page_batch_{count}", batch_rate, loop_rate, "pictures/s")


if __name__ == "__main__":
    main()
