"""Crop and stitch compared with generating the whole picture, and the memory for editing a very large picture.

    python -m benchmarks.crop [--steps 1]

`crop_1024`: a 1,024 px picture with a region of 1/16 of its area, with Stable Diffusion 1.5 in-painting at full size
and random weights: seconds for the whole picture at 1,024 px and for a window of 512 px, in the same run.
`crop_1024_counted`: operations of both at 50 steps, counted on the meta device. Target: 3 times faster.

`large_picture`: peak resident memory, beyond that of the models, while the shipped models edit a picture of
4,000 x 6,000 px in a region that the predictor finds. Target: 1.5 GB.
"""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from benchmarks.full_size_models import inpaint_generator
from benchmarks.harness import in_own_process, options, peak_mebibytes, record, seconds
from benchmarks.region_cost import generation_operations
from regionedit.config import CropConfig, StableDiffusionConfig
from regionedit.crop_and_stitch import boxes_of, paint
from regionedit.records import Captions, EditRequest, Region

SIDE, WINDOW, REGION = 1024, 512, (400, 500, 656, 756)
WIDTH, HEIGHT = 6000, 4000
KNOWN = torch.zeros(SIDE, SIDE)
KNOWN[REGION[1] : REGION[3], REGION[0] : REGION[2]] = 1


def repaint_call(size: int, context: float, steps: int):
    """A function that repaints the region of a random picture."""
    config = StableDiffusionConfig(size=size, num_inference_steps=steps, guidance_scale=7.5, dtype="auto")
    generator = inpaint_generator(config, "cpu")
    captions, request = Captions("a", "b"), EditRequest(None, "make it red")

    def call() -> None:
        picture_BCHW = torch.rand(1, 3, SIDE, SIDE)
        region = Region(KNOWN[None, None], KNOWN[None, None])
        with torch.no_grad():
            paint(generator, picture_BCHW, region, [0], [request], [captions], CropConfig(context), 1, None)

    return call


def large_picture() -> tuple[float, float]:
    """Two numbers of GB: resident with the models loaded, and the peak while a large picture is edited."""
    from regionedit.editor import Editor

    editor = Editor.from_config("configs/edit_inpaint_microworld.yaml")
    editor = Editor(replace(editor.config, crop=CropConfig(context=1.5)), editor.models)
    pattern = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    captions = Captions("a red circle", "a blue circle")

    def request(width: int, height: int) -> EditRequest:
        picture = Image.fromarray(pattern).resize((width, height), Image.Resampling.BICUBIC)
        return EditRequest(picture, "make the red circle blue", captions=captions)

    editor.edit(request(96, 96))
    large = request(WIDTH, HEIGHT)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    result = editor.edit(large)
    assert result.image.size == (WIDTH, HEIGHT) and result.mask.getbbox()
    return before / 1e9, peak_mebibytes() * 2**20 / 1e9


def main() -> None:
    steps = options(__doc__, steps=(1, 1, "denoising steps to time")).parse_args().steps
    before, most = in_own_process(large_picture)
    record("large_picture", most - before, before, "GB beyond the models, beside the process with them")
    assert boxes_of(KNOWN, 1.5, WINDOW) == [(272, 372, 784, 884)]
    tera = [generation_operations(size) / 1e12 for size in (SIDE, WINDOW)]
    record("crop_1024_counted", *tera, "TFLOP, whole picture to window", "counted")
    whole = seconds(repaint_call(SIDE, 0, steps))
    window = seconds(repaint_call(WINDOW, 1.5, steps))
    record("crop_1024", whole, window, f"s at {steps} steps, whole picture to window")


if __name__ == "__main__":
    main()
