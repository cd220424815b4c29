"""The page's functions for programs, under names that stay: /find_region, /edit, /reproduce, /compare, /batch."""

# No postponed annotations here: Gradio documents the endpoints from those of the functions.
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from regionedit.config import AppConfig
from regionedit.images import png
from regionedit.records import EditResult
from regionedit.results import changed_outside
from regionedit.web.batch_files import gather, zipped
from regionedit.web.batch_tab import edit_all
from regionedit.web.comparison import COLUMNS, Comparer, sheet
from regionedit.web.handlers import told
from regionedit.web.history_tab import restored
from regionedit.web.portable import portable_png, read_portable
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch
from regionedit.web.studio import Studio


def api(studio: Studio) -> None:
    """Add the endpoints to the current Blocks."""
    import gradio as gr

    config, comparer = studio.config, Comparer(studio)

    def find_region(image: gr.FileData, instruction: str) -> tuple[gr.FileData, gr.FileData, dict]:
        """Where an instruction would be carried out: mask.png (255 = edit), a heat map, and what is known of it."""
        picture = studio.open(*uploaded(image))
        sketch = studio.find(_settings(config, instruction), Sketch(picture))
        cut, found = Cut.of(config.region), sketch.found
        mask = sketch.mask(cut, config.region)
        told_of = {"mask_source": found.mask_source, "seconds": sum(found.timings.values()), "note": found.note}
        with tempfile.TemporaryDirectory() as folder:
            files = [
                _file(gr, folder, "mask.png", png(mask)),
                _file(gr, folder, "heat_map.png", png(sketch.shown(cut, config.region))),
            ]
            yield *files, told_of

    def edit(
        image: gr.FileData,
        instruction: str,
        seed: int = 0,
        steps: int = 0,
        guidance: float = 0.0,
        target_caption: str = "",
        mask: gr.FileData | None = None,
    ) -> tuple[gr.FileData, gr.FileData, str]:
        """Edit a picture: the result as PNG with its run.json inside, mask.png, run.json as text.

        Steps and guidance of 0 are the page's own.
        A mask (255 = edit, the picture's size) takes the place of the region that would be found.
        """
        picture = studio.open(*uploaded(image))
        drawn = None if mask is None else studio.open_mask(uploaded(mask)[0], picture)
        settings = _settings(config, instruction, seed, steps, guidance, target_caption)
        (result,) = studio.edit(settings, Sketch(picture), Cut.of(config.region), mask=drawn)
        with tempfile.TemporaryDirectory() as folder:
            yield _answer(gr, result, folder)

    def reproduce(image: gr.FileData, result: gr.FileData) -> tuple[gr.FileData, gr.FileData, str]:
        """Make an edit again from its source and the PNG that was downloaded; answers as /edit."""
        picture, (path, _) = studio.open(*uploaded(image)), uploaded(result)
        studio.check_size(path, "result")
        settings, sketch, cut = restored(*read_portable(path, config.max_pixels), [picture], studio)
        (again,) = studio.edit(settings, sketch, cut)
        with tempfile.TemporaryDirectory() as folder:
            yield _answer(gr, again, folder)

    def compare(
        image: gr.FileData, instruction: str, mask_sources: list[str], systems: list[str]
    ) -> tuple[gr.FileData, dict]:
        """One request under several mask sources and systems: a sheet of pictures, and times and scores."""
        picture = studio.open(*uploaded(image))
        asked = Cut.of(config.region), mask_sources, systems
        answers = list(comparer.compare(_settings(config, instruction), Sketch(picture), *asked))
        if not any(answer.result for answer in answers):
            raise ValueError(f"None of them could edit; the first: {answers[0].failure}")
        with tempfile.TemporaryDirectory() as folder:
            table = {"columns": list(COLUMNS), "rows": [answer.row() for answer in answers]}
            yield _file(gr, folder, "comparison.png", png(sheet(answers))), table

    def batch(files: list[gr.FileData], instruction: str = "", seed: int = 0) -> tuple[gr.FileData, dict]:
        """Edit many pictures, by one instruction or a CSV or JSONL among them: a ZIP, and the failures with reasons."""
        settings = _settings(config, instruction or "-", seed)
        with tempfile.TemporaryDirectory() as folder:
            requests = gather(studio, [uploaded(file) for file in files], settings, Path(folder) / "uploads")
            *_, items = edit_all(studio, requests, settings, Path(folder) / "out")
            ready = zipped(Path(folder) / "out", Path(folder) / "regionedit_batch.zip")
            yield gr.FileData(path=str(ready)).model_dump(), {item.id: item.failure for item in items if item.failure}

    for function in (find_region, edit, reproduce, compare):
        gr.api(told(function), api_name=function.__name__, concurrency_id="models", concurrency_limit=1)
    gr.api(told(batch), api_name="batch", concurrency_id="batch", concurrency_limit=1)


def uploaded(file: dict) -> tuple[Path, str]:
    """Path and own name of a file that a program uploaded before.

    Raises:
        ValueError: it is no such file; programs may not name files of the server.
    """
    path = Path(str((file or {}).get("path", ""))) if isinstance(file, dict) else Path()
    served = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    if not path.is_absolute() or not path.resolve().is_relative_to(served) or not path.is_file():
        raise ValueError("file: not an uploaded one; send it to /gradio_api/upload first, as gradio_client does")
    return path, str(file.get("orig_name") or path.name)


def _settings(config: AppConfig, instruction: str, seed=0, steps=0, guidance=0.0, target_caption="") -> Settings:
    own = Settings.of(config)
    return replace(
        own,
        instruction=instruction,
        seed=seed,
        steps=steps or own.steps,
        guidance=guidance or own.guidance,
        target_caption=target_caption,
    )


def _answer(gr, result: EditResult, folder: str) -> tuple:
    outside = changed_outside(result.source, result.image, result.mask)
    return (
        _file(gr, folder, f"{result.id}_edited.png", portable_png(result)),
        _file(gr, folder, "mask.png", png(result.mask)),
        # As text: gradio_client takes every {"path": ...} for a file to fetch, and a record tells a picture's path.
        json.dumps(result.record | {"changed_outside": outside}),
    )


def _file(gr, folder: str, name: str, data: bytes) -> dict:
    path = Path(folder) / name
    path.write_bytes(data)
    return gr.FileData(path=str(path)).model_dump()
