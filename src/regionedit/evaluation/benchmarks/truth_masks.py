"""Human masks as benchmarks store them, decoded to mode "L", 255 = edit."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.evaluation.benchmarks.base import Benchmark


class MaskedBenchmark(Benchmark):
    """A benchmark with masks. One that cannot be used leaves its case without a mask, and is counted by reason.

    A mask is decoded when the iteration reaches it, so `counts` is complete after one iteration.
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
    """The region that was erased from a copy of the picture, as MagicBrush and HumanEdit store theirs.

    With transparency: what is not opaque. Without, in colour: what is pure black (the hole after alpha was dropped).
    In grey: what is brighter than 127. A luminance threshold of the first two would be inverted and would follow the
    picture's content (github.com/OSU-NLP-Group/MagicBrush/issues/10, github.com/viiika/HumanEdit mask_convert.py).

    Args:
        mask: as it was stored, not converted.
        size: of the picture, (width, height); the mask is enlarged or reduced to it by nearest neighbour.

    Raises:
        ValueError: nothing or everything was erased, or a mode that holds no mask.
    """
    if mask.mode in ("1", "L"):
        return bright(mask, size)
    if mask.mode not in ("P", "PA", "LA", "RGB", "RGBA"):
        raise ValueError(f"mode {mask.mode}")
    if mask.has_transparency_data:
        alpha = np.asarray(mask.convert("RGBA"))[..., 3]
        if alpha.min() < 255:  # opaque everywhere says nothing: the hole was painted black on saving
            return _finished(alpha < 255, size)
    return _finished((np.asarray(mask.convert("RGB")) == 0).all(-1), size)


def bright(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The region of a black and white mask that is brighter than 127, at `size` (width, height).

    Raises:
        ValueError: nothing or everything is.
    """
    return _finished(np.asarray(mask.convert("L")) > 127, size)


def _finished(edit_HW: np.ndarray, size: tuple[int, int]) -> Image.Image:
    mask = Image.fromarray(edit_HW.astype(np.uint8) * 255)
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.NEAREST)
    darkest, brightest = mask.getextrema()
    if darkest == brightest:
        raise ValueError("it covers nothing" if brightest == 0 else "it covers everything")
    return mask
