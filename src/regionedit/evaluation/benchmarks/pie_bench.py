"""PIE-Bench: 700 pictures of 512x512 with prompts, an instruction and a human mask, ten types of editing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.evaluation.benchmarks.base import LANDED, OUTSIDE, REGIONS, kept_ids, resized_to
from regionedit.evaluation.benchmarks.layout import require_files, require_layout
from regionedit.evaluation.benchmarks.pictures import MaskedBenchmark, open_rgb
from regionedit.records import Captions, EditCase, EditRequest

SIZE = (512, 512)  # of the masks
CASES = 700
TYPES = {
    "0": "random",
    "1": "replace",
    "2": "add",
    "3": "remove",
    "4": "content",
    "5": "pose",
    "6": "recolour",
    "7": "material",
    "8": "background",
    "9": "style",
}
EVERYWHERE = ("8", "9")  # types whose masks cover nearly the whole picture, or all but the object


class PieBench(MaskedBenchmark):
    """The benchmark of PnP Inversion (arXiv 2310.01506; github.com/cure-lab/PnPInversion).

    The folder holds `mapping_file.json` and `annotation_images/`. The brackets `[ ]`, which mark what differs between
    the prompts, are removed. The mask is only used for scoring; giving it to an editor is another setting. It has no
    frame; the authors' background metrics, `*_pie`, add one. Background and style edits (types 8 and 9) are no headline
    operations; the group `local` separates them.
    """

    metrics = (
        "structure_distance",
        "background_psnr_pie",
        "background_lpips_pie",
        "background_mse_pie",
        "background_ssim_pie",
        "clip_whole",
        "clip_edited",
        "background_psnr",
        "background_lpips",
        "background_mse",
        "background_ssim",
        *REGIONS,
        "change_iou",
        *LANDED,
        *OUTSIDE,
        "clip_direction",
        "clip_instruction",
    )
    headline = tuple(name for number, name in TYPES.items() if number not in EVERYWHERE)
    protocol = resized_to("source") | {
        "captions": "prompts without [ ]",
        "truth_mask": "run lengths, row by row, without the frame of one pixel",
    }

    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        super().__init__(folder, limit, ids)
        self.folder = require_layout(folder, ("mapping_file.json", "annotation_images/"), "PIE-Bench")
        self.index = self.folder / "mapping_file.json"
        try:
            rows: dict[str, dict] = json.loads(self.index.read_text())
            missing = [f"{key} has no {name}" for key, row in rows.items() for name in FIELDS if name not in row]
        except (AttributeError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"data: {self.index} is not {{key: {{image_path, ...}}}}: {error!r}") from None
        if missing:
            raise ValueError(f"data: {self.index}: {missing[0]}; PIE-Bench's fields are: {', '.join(FIELDS)}")
        listed = kept_ids(list(rows), ids)
        kept = [key for key in rows if key in listed]
        self.kept = [(key, rows[key]) for key in kept[: limit or None]]
        if not self.kept:
            raise ValueError(f"data: {self.index} holds no case")
        require_files({self._path(row) for _, row in self.kept}, "pictures")
        instructions = [_text(row["editing_instruction"]) for row in rows.values()]
        self._counts = {"cases": len(rows), "kept": len(self.kept)}
        self._counts["without instruction, edited by the target prompt"] = instructions.count("")

    def _case(self, key_and_row: tuple[str, dict]) -> EditCase:
        key, row = key_and_row
        image = open_rgb(self._path(row), str(self._path(row)))
        captions = Captions(_prompt(row["original_prompt"]), _prompt(row["editing_prompt"]))
        kind = str(row["editing_type_id"])
        instruction = _text(row["editing_instruction"]) or captions.target
        return EditCase(
            id=key,
            request=EditRequest(image, instruction, captions=captions, id=key),
            operation=TYPES.get(kind, kind),
            groups={"local": "no" if kind in EVERYWHERE else "yes"},
            truth_mask=self._mask(key, lambda: truth_mask(row["mask"], image.size)),
        )

    def _path(self, row: dict) -> Path:
        return self.folder / "annotation_images" / row["image_path"]


FIELDS = ("image_path", "original_prompt", "editing_prompt", "editing_instruction", "editing_type_id", "mask")


def decode_mask(runs: Sequence[int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Decode PIE-Bench's run lengths into a mask.

    The format differs from COCO's: [start, length, start, length, ...], starts counted from 0, row by row; every run
    belongs to the mask. Runs may overlap; one that leaves the picture, of size (width, height), is cut off.

    Returns:
        [height, width] bool, true = edit.

    Raises:
        ValueError: an odd number of values, a negative one, or a start outside the picture.
    """
    width, height = size
    if len(runs) % 2:
        raise ValueError(f"the mask has {len(runs)} values, where starts and lengths come in pairs")
    starts, lengths = np.asarray(runs, np.int64).reshape(-1, 2).T
    if len(starts) and (min(starts.min(), lengths.min()) < 0 or starts.max() >= width * height):
        raise ValueError(f"the mask has a run outside the {width}x{height} picture")
    ends = np.minimum(starts + lengths, width * height)
    open_runs = np.bincount(starts, minlength=width * height + 1) - np.bincount(ends, minlength=width * height + 1)
    return (open_runs.cumsum()[:-1] > 0).reshape(height, width)


def truth_mask(runs: Sequence[int], size: tuple[int, int]) -> Image.Image:
    """The mask, mode "L", 255 = edit, at `size`; a ValueError if it covers nothing. It may cover everything."""
    edit_HW = decode_mask(runs)
    if not edit_HW.any():
        raise ValueError("it covers nothing")
    mask = Image.fromarray(edit_HW.astype(np.uint8) * 255)
    return mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST)


def _prompt(text: str) -> str:
    return text.replace("[", "").replace("]", "").strip()


def _text(text: str | None) -> str:
    return (text or "").strip()
