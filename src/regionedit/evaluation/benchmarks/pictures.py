"""Reads a benchmark's pictures as its authors' scripts do, and its human masks as mode "L", 255 = edit."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.command_line import one_line
from regionedit.evaluation.benchmarks.base import Benchmark

ERASED = "erased region (alpha, or pure black), nearest neighbour to the picture's size"
BRIGHT = "brighter than 127, nearest neighbour to the picture's size"


def open_stored(source: Path | bytes, name: str) -> Image.Image:
    """A stored picture in its own mode; the format is detected from the content, because suffixes may be wrong.

    Raises:
        ValueError: the picture is missing, empty, not a picture, or damaged; the message has the name.
    """
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        picture.load()
    except Exception as error:  # decoders raise many types for a damaged file: OSError, SyntaxError, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise ValueError(f"data: {name} is not a picture that can be read: {reason}") from None
    return picture


def open_rgb(source: Path | bytes, name: str) -> Image.Image:
    """A stored picture after `convert("RGB")`, as in MagicBrush's `image_eval.py` and the scripts derived from it.

    Transparency is dropped, not flattened onto a colour, and EXIF rotation is not applied.
    """
    rgb = open_stored(source, name).convert("RGB")
    rgb.info = {"notes": [], "path": name}  # makes `images.upright_rgb` return it unchanged
    return rgb


class MaskedBenchmark(Benchmark):
    """A benchmark with masks. If a mask cannot be used, its case has none, and `counts` counts it by reason.

    A mask is decoded when the iteration reaches its case, so `counts` is complete after one iteration.
    """

    @abstractmethod
    def __init__(self, folder: str | Path, limit: int = 0, ids: str | Path | None = None):
        self._counts: dict[str, int] = {}
        self._without_mask: dict[str, str] = {}

    @property
    def counts(self) -> dict[str, int]:
        return {**self._counts, **Counter(self._without_mask.values())}

    def _mask(self, case_id: str, decode: Callable[[], Image.Image]) -> Image.Image | None:
        try:
            return decode()
        except ValueError as reason:
            self._without_mask[case_id] = f"without mask: {reason}"
            return None


def erased(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The region that was erased from a copy of the picture, which is how MagicBrush and HumanEdit store masks.

    With transparency, the region is what is not opaque; in colour without transparency, what is pure black (the hole
    after alpha was dropped); in grey, what is brighter than 127. For the first two, a luminance threshold would be
    inverted and would depend on the picture's content (github.com/OSU-NLP-Group/MagicBrush/issues/10,
    github.com/viiika/HumanEdit mask_convert.py). The mask is resized to the picture's size by nearest neighbour.

    Raises:
        ValueError: nothing or everything is erased, or the mode cannot hold a mask.
    """
    if mask.mode in ("1", "L"):
        return bright(mask, size)
    if mask.mode not in ("P", "PA", "LA", "RGB", "RGBA"):
        raise ValueError(f"mode {mask.mode}")
    if mask.has_transparency_data:
        alpha = np.asarray(mask.convert("RGBA"))[..., 3]
        if alpha.min() < 255:  # if all is opaque, the hole was saved as black instead
            return _mask_image(alpha < 255, size)
    return _mask_image((np.asarray(mask.convert("RGB")) == 0).all(-1), size)


def bright(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The region of a black and white mask that is brighter than 127, at `size`; a ValueError if nothing or all is."""
    return _mask_image(np.asarray(mask.convert("L")) > 127, size)


def _mask_image(edit_HW: np.ndarray, size: tuple[int, int]) -> Image.Image:
    mask = Image.fromarray(edit_HW.astype(np.uint8) * 255)
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.NEAREST)
    darkest, brightest = mask.getextrema()
    if darkest == brightest:
        raise ValueError("it covers nothing" if brightest == 0 else "it covers everything")
    return mask
