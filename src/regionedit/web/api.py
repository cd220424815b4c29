"""The HTTP endpoints for programs, whose names will not change: /find_region, /edit, /reproduce,
/layers, /compare, /batch."""

# No postponed annotations here: Gradio reads the functions' annotations to document the endpoints.
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from regionedit.config import AppConfig
from regionedit.images import png
from regionedit.records import EditResult
from regionedit.request_files import mask_reading
from regionedit.result_files import LAYER, LAYERED, layer_png, open_raster
from regionedit.results import changed_outside
from regionedit.web.batch_tab import edit_all, gather, zipped
from regionedit.web.compare_tab import COLUMNS, Comparer, sheet
from regionedit.web.handlers import errors_shown, typed
from regionedit.web.result_file import read_result_png, restored, result_png
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch
from regionedit.web.studio import Studio
from regionedit.web.uploads import uploaded


def api(studio: Studio, comparer: Comparer) -> None:
    """Add the endpoints to the current Blocks."""
    import gradio as gr

    config = studio.config

    def find_region(image: gr.FileData, instruction: str) -> tuple[gr.FileData, gr.FileData, dict]:
        """Find the region of an instruction: mask.png (255 = edit), a heat map, and mask source, seconds and note."""
        picture = studio.open(*uploaded(image))
        sketch = studio.find(_settings(config, instruction), Sketch(picture))
        cut, found = Cut.of(config.region), sketch.found
        mask = sketch.mask(cut, config.region)
        details = {"mask_source": found.mask_source, "seconds": sum(found.timings.values()), "note": found.note}
        with tempfile.TemporaryDirectory() as folder:
            files = [
                _file(gr, folder, "mask.png", png(mask)),
                _file(gr, folder, "heat_map.png", png(sketch.shown(cut, config.region))),
            ]
            yield *files, details

    def edit(
        image: gr.FileData,
        instruction: str,
        seed: int = 0,
        num_inference_steps: int = 0,
        guidance_scale: float = 0.0,
        target_caption: str = "",
        mask: gr.FileData | None = None,
        mask_is: str = "auto",
        mask_soft: str = "",
        mask_value: str = "",
        mask_operations: str = "",
    ) -> tuple[gr.FileData, gr.FileData, str]:
        """Edit a picture: the result as a PNG that contains its run.json, then mask.png, then run.json as text.

        For num_inference_steps or guidance_scale 0 the page's default applies.
        A mask file of the picture's size replaces the region that would be found; mask_is (auto, alpha, luma,
        inverted), mask_soft (true, false or empty) and mask_value say how to read it, as in infer.py, and run.json says
        how it was read. mask_operations (invert, fill, largest, hull, box) change the region, given or found.
        """
        picture = studio.open(*uploaded(image))
        soft = {"mask_soft": _true_or_false(mask_soft)} if mask_soft else {}
        reading = mask_reading({"mask_is": mask_is, "mask_value": mask_value} | soft, mask is not None)
        drawn = None
        if mask is not None:
            path, name = uploaded(mask)
            drawn = studio.open_mask(path, picture, reading, name)
        settings = _settings(config, instruction, seed, num_inference_steps, guidance_scale, target_caption)
        (result,) = studio.edit(settings, Sketch(picture), Cut.of(config.region), None, drawn, mask_operations)
        with tempfile.TemporaryDirectory() as folder:
            yield _edit_files(gr, result, folder)

    def reproduce(image: gr.FileData, result: gr.FileData) -> tuple[gr.FileData, gr.FileData, str]:
        """Repeat an edit from its source and the downloaded PNG; returns the same as /edit."""
        picture, (path, _) = studio.open(*uploaded(image)), uploaded(result)
        studio.check_size(path, "result")
        settings, sketch, cut = restored(*read_result_png(path, config.max_pixels), [picture], config.region)
        (again,) = studio.edit(settings, sketch, cut)
        with tempfile.TemporaryDirectory() as folder:
            yield _edit_files(gr, again, folder)

    def layers(image: gr.FileData, result: gr.FileData) -> tuple[gr.FileData, gr.FileData]:
        """The layers of an edit from its source and the downloaded PNG: layer.png, the edited region on transparency,
        and result.ora, an OpenRaster file with source, edited region and mask for Krita or GIMP. Nothing is edited."""
        picture, (path, name) = studio.open(*uploaded(image)), uploaded(result)
        edited = studio.open(path, name)
        record, mask = read_result_png(path, config.max_pixels)
        restored(record, mask, [picture], config.region)
        with tempfile.TemporaryDirectory() as folder:
            yield (
                _file(gr, folder, LAYER, layer_png(edited, mask)),
                _file(gr, folder, LAYERED, open_raster(picture, edited, mask)),
            )

    def compare(
        image: gr.FileData, instruction: str, mask_sources: list[str], systems: list[str]
    ) -> tuple[gr.FileData, dict]:
        """Edit with several mask sources and systems: a sheet of pictures, and a table of times and scores."""
        picture = studio.open(*uploaded(image))
        compared = Cut.of(config.region), mask_sources, systems
        results = list(comparer.compare(_settings(config, instruction), Sketch(picture), *compared))
        with tempfile.TemporaryDirectory() as folder:
            table = {"columns": list(COLUMNS), "rows": [one.row() for one in results]}
            yield _file(gr, folder, "comparison.png", png(sheet(results))), table

    def batch(files: list[gr.FileData], instruction: str = "", seed: int = 0) -> tuple[gr.FileData, dict]:
        """Edit many pictures, by one instruction or a CSV or JSONL among them: a ZIP, and failures with reasons."""
        settings = _settings(config, instruction or "-", seed)
        with tempfile.TemporaryDirectory() as folder:
            requests = gather(studio, [uploaded(file) for file in files], settings, Path(folder) / "uploads")
            *_, items = edit_all(studio, requests, settings, Path(folder) / "out")
            ready = zipped(Path(folder) / "out", Path(folder) / "regionedit_batch.zip")
            yield gr.FileData(path=str(ready)).model_dump(), {item.id: item.failure for item in items if item.failure}

    for function in (find_region, edit, reproduce, layers, compare):
        gr.api(errors_shown(typed(function)), api_name=function.__name__, concurrency_id="models", concurrency_limit=1)
    gr.api(errors_shown(typed(batch)), api_name="batch", concurrency_id="batch", concurrency_limit=1)


def _settings(
    config: AppConfig, instruction: str, seed=0, num_inference_steps=0, guidance_scale=0.0, target_caption=""
) -> Settings:
    defaults = Settings.of(config)
    return replace(
        defaults,
        instruction=instruction,
        seed=seed,
        num_inference_steps=num_inference_steps or defaults.num_inference_steps,
        guidance_scale=guidance_scale or defaults.guidance_scale,
        target_caption=target_caption,
    )


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"mask_soft: {text[:20]!r} is neither true nor false")
    return text.lower() == "true"


def _edit_files(gr, result: EditResult, folder: str) -> tuple:
    outside = changed_outside(result.source, result.image, result.mask)
    return (
        _file(gr, folder, f"{result.id}_edited.png", result_png(result)),
        _file(gr, folder, "mask.png", png(result.mask)),
        # As text: gradio_client downloads every {"path": ...}, and the record contains the picture's path.
        json.dumps(result.record | {"changed_outside": outside}),
    )


def _file(gr, folder: str, name: str, data: bytes) -> dict:
    path = Path(folder) / name
    path.write_bytes(data)
    return gr.FileData(path=str(path)).model_dump()
