"""Measures the seam of an edit, and compares editing in a window with editing the whole picture at a smaller size.

    python experiments/seam_study.py --out docs/study/seam.json

Four held-out pictures form one of 128 px; one of the four is edited in its true region, grown by four pixels. The
in-painter works at 64 px, either on the whole picture made smaller or on a window around the region. Scores of each
variant are the success rate (`pixel_check` on that quarter) and the seam: the mean colour difference between
neighbouring pixels of which exactly one is edited, divided by that of the true result (1: no seam).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from harness import options, show, write_json
from known_edits import BATCH, KnownEdits, chunks, known_edits, pictures, successes
from rich.progress import track
from torch import Tensor
from torchvision.utils import make_grid

from regionedit.command_line import load_config
from regionedit.config import CropConfig, EditConfig
from regionedit.editor import Editor
from regionedit.generators import noise_seed
from regionedit.images import to_pictures, to_tensor
from regionedit.masks import dilate
from regionedit.microworld.scene import SIZE
from regionedit.records import Captions, EditRequest

OPERATIONS = ("recolour", "replace", "remove", "add")
GROWN = 4  # pixels; the learned region is grown by two
VARIANTS: dict[str, tuple[CropConfig, float]] = {  # what the in-painter works on, and the feather in pixels
    "the whole picture, made smaller": (CropConfig(), 0),
    "a window": (CropConfig(context=1.5), 0),
    "a window, tone 16": (CropConfig(context=1.5, tone=16), 0),
    "a window, tone 16, match 8": (CropConfig(context=1.5, tone=16, match=8), 0),
    "a window, match 8": (CropConfig(context=1.5, match=8), 0),
    "a window, feather 4": (CropConfig(context=1.5), 4),
    "a window, match 4, feather 2": (CropConfig(context=1.5, match=4), 2),
    "a window, match 8, feather 4": (CropConfig(context=1.5, match=8), 4),
}


def jump(pictures_BCHW: Tensor, mask_B1HW: Tensor) -> float:
    """Mean absolute difference between neighbours, to the right and below, of which exactly one is edited."""
    total, count = 0.0, 0.0
    for step in ((0, 1), (1, 0)):
        height, width = (side - by for side, by in zip(mask_B1HW.shape[-2:], step, strict=True))
        here, there = (..., slice(height), slice(width)), (..., slice(step[0], None), slice(step[1], None))
        across_B1HW = (mask_B1HW[here] > 0) != (mask_B1HW[there] > 0)
        apart_B1HW = (pictures_BCHW[here] - pictures_BCHW[there]).abs().mean(1, keepdim=True)
        total, count = total + float((apart_B1HW * across_B1HW).sum()), count + float(across_B1HW.sum())
    return total / count


def quarter(number: int) -> tuple[int, int, int, int]:
    """The edited picture's box in the large picture."""
    x, y = SIZE * (number % 2), SIZE * (number // 2 % 2)
    return x, y, x + SIZE, y + SIZE


def together(pictures_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
    """Large pictures: each picture in its quarter, and the next three of the others in the rest."""
    large = []
    for number, picture_CHW in enumerate(pictures_BCHW):
        four = [others_BCHW[(number + shift) % len(others_BCHW)] for shift in (1, 2, 3)]
        four.insert(number % 4, picture_CHW)
        large.append(make_grid(four, nrow=2, padding=0))
    return torch.stack(large)


def edited(editor: Editor, known: KnownEdits, large_BCHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    rows = zip(known.edits, to_pictures(large_BCHW), to_pictures(mask_B1HW), strict=True)
    requests = []
    for number, (edit, picture, mask) in enumerate(rows):
        captions = Captions(edit.source_caption, edit.target_caption)
        seed = noise_seed(0, str(number))
        requests.append(EditRequest(picture, edit.instruction, seed=seed, captions=captions, mask=mask, id=str(number)))
    results = []
    for part in track(chunks(len(requests), BATCH), description="edits"):
        results += editor.edit_batch([requests[index] for index in part])
    return to_tensor([result.image for result in results])


def main() -> None:
    config = ("configs/edit_inpaint_microworld.yaml", "config of infer.py with the generator")
    args = options(__doc__, config, "docs/study/seam.json", (200, "test edits")).parse_args()
    known = known_edits("test", 9, range(args.samples), OPERATIONS)
    truth_BCHW = pictures([edit.target for edit in known.edits])
    small_B1HW = dilate((known.truth_B1HW > 0).float(), GROWN)
    nothing = torch.zeros_like(small_B1HW)
    source_BCHW, true_BCHW = (together(own, known.source_BCHW) for own in (known.source_BCHW, truth_BCHW))
    mask_B1HW = together(small_B1HW, nothing)[:, :1]  # `make_grid` repeats the channel
    base = load_config(EditConfig, args.config)
    base = replace(base, mask_source="drawn", batch=BATCH)
    models = Editor(base).models
    scores = {}
    for name, (crop, feather) in VARIANTS.items():
        region = replace(base.region, feather=feather, dilate=0.0, grow=0)
        edited_BCHW = edited(Editor(replace(base, crop=crop, region=region), models), known, source_BCHW, mask_B1HW)
        cut = [edited_BCHW[n, :, y0:y1, x0:x1] for n in range(args.samples) for x0, y0, x1, y1 in [quarter(n)]]
        scores[name] = {
            "success": float(successes(torch.stack(cut), known).mean()),
            "seam": jump(edited_BCHW, mask_B1HW) / jump(true_BCHW, mask_B1HW),
        }
    seam = jump(source_BCHW, mask_B1HW) / jump(true_BCHW, mask_B1HW)
    scores["the source, nothing edited"] = {"success": 0.0, "seam": seam}
    show("seams", scores)
    head = {"split": "test", "count": args.samples, "config": args.config, "grown": GROWN}
    write_json(args.out, head | {"variants": scores})


if __name__ == "__main__":
    main()
