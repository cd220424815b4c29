"""The region on the page: the found region, cut by the sliders, and the user's corrections.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

import io
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from regionedit import masks
from regionedit.display import heat_map
from regionedit.images import png, smaller, to_pictures, to_tensor
from regionedit.mask_files import widened
from regionedit.mask_operations import operated
from regionedit.mask_sources.base import cut_masks
from regionedit.records import FoundRegion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regionedit.config import RegionConfig

UNTOUCHED, ADDED, ERASED = 128, 255, 0
UNDONE_AT_MOST = 30
SHOWN = 1024
"""Most pixels on the longer side of the region's picture on the page. A small picture is enlarged to about half of it,
so that the outline is a thin line."""


@dataclass(frozen=True)
class Cut:
    """Values of the sliders, as in `RegionConfig`."""

    threshold: float
    grow: int
    feather: float

    @classmethod
    def of(cls, config: RegionConfig) -> Cut:
        return cls(config.threshold, config.grow, config.feather)


@dataclass(frozen=True)
class Sketch:
    """A picture, the region found in it, and the user's corrections, which override the sliders.

    Args:
        picture: RGB.
        found: the region before the sliders' `grow` and `feather`; None if no region was searched for yet.
        instruction: the one that the region was found for.
        given: the region comes from a file and is not found again.
        touched: PNGs of mode "L" with ADDED, ERASED or UNTOUCHED for each pixel. The last one applies; the others are
            for undo. Compressed, because a session keeps many.
    """

    picture: Image.Image
    found: FoundRegion | None = None
    instruction: str = ""
    touched: tuple[bytes, ...] = ()
    given: bool = False

    @classmethod
    def masked(cls, picture: Image.Image, mask: Image.Image, instruction: str = "", **found: Any) -> Sketch:
        """A sketch whose region is a mask as `open_mask` reads it; other fields of its `FoundRegion` may be given."""
        drawn = {"mask_source": "drawn", "note": "; ".join(mask.info.get("notes", ())), "timings": {"region": 0.0}}
        probability = np.asarray(mask, np.float32) / 255
        return cls(picture, FoundRegion(mask=mask, probability=probability, **drawn | found), instruction, given=True)

    def first_cut(self, config: RegionConfig) -> Cut:
        """The sliders' values before the user moves them: those of the configuration. A region from a file is neither
        grown nor softened: it is edited as it was drawn."""
        return Cut(config.threshold, 0, 0.0) if self.given else Cut.of(config)

    def cut_after(self, before: Sketch | None, cut: Cut, config: RegionConfig) -> Cut:
        """The sliders' values when this sketch replaces the one before: a slider that the user has moved stays where it
        is, the others take their first value for this sketch."""
        untouched = Cut.of(config) if before is None else before.first_cut(config)
        pairs = zip(astuple(cut), astuple(untouched), astuple(self.first_cut(config)), strict=True)
        return Cut(*(first if value == old else value for value, old, first in pairs))

    def is_stale(self, instruction: str) -> bool:
        """Whether the region must first be found for this instruction; never if it is only painted, or from a file."""
        if self.found is not None and self.found.mask_source == "drawn":
            return False
        return not self.touched if self.found is None else self.instruction != instruction

    def is_own(self, cut: Cut, config: RegionConfig) -> bool:
        """Whether the editor would find this region itself: it has no corrections, and no slider was moved."""
        return not self.touched and not self.given and cut == Cut.of(config)

    def mask(self, cut: Cut, config: RegionConfig) -> Image.Image:
        """The region as a mask of mode "L", 255 = edit. Runs no model."""
        height, width = self.picture.height, self.picture.width
        if self.found is None:
            mask_B1HW = to_tensor([Image.new("L", (width, height))])
        elif cut.threshold == config.threshold:
            mask_B1HW = to_tensor([self.found.mask])
        else:
            mask_B1HW = self._cut(replace(config, threshold=cut.threshold))
        mask_B1HW = masks.grow(mask_B1HW, cut.grow)
        if self.touched:
            touched_HW = _decoded(self.touched[-1])
            mask_B1HW[0, 0][touched_HW == ADDED] = 1
            mask_B1HW[0, 0][touched_HW == ERASED] = 0
        mask = to_pictures(masks.feather(mask_B1HW, cut.feather))[0]
        if self.found is not None and "notes" in (info := self.found.mask.info):  # how the mask file was understood
            wider = "" if self.touched else widened(self.found.mask, mask)
            mask.info |= {"notes": [*info["notes"], *filter(None, [wider])], "path": info["path"]}
        return mask

    def _cut(self, config: RegionConfig):
        import torch

        patches = self.found.patches
        if patches is None:  # the map has no patch grid, and `dilate` is counted in patches
            patches, config = np.zeros((1, 1)), replace(config, dilate=0.0)
        return cut_masks(torch.from_numpy(self.found.probability)[None, None].float(), patches.shape, config)

    def corrected(self, change: Image.Image, adds: bool) -> Sketch:
        """The sketch with `change` added to the region or erased from it: mode "L", every value above 0 counts."""
        touched_HW = _decoded(self.touched[-1]).copy() if self.touched else np.full(change.size[::-1], UNTOUCHED)
        touched_HW[np.asarray(change) > 0] = ADDED if adds else ERASED
        return self._with_touched(touched_HW)

    def operated(self, operation: str, cut: Cut, config: RegionConfig) -> Sketch:
        """The sketch with one of the `mask_operations` applied to the region as it is now, as one correction.

        Like every correction it overrides the sliders and is taken back by `undone`.
        """
        mask_HW = np.asarray(self.mask(replace(cut, feather=0), config), np.float32) / 255
        return self._with_touched(np.where(operated(mask_HW, [operation]) > 0, ADDED, ERASED))

    def _with_touched(self, touched_HW: np.ndarray) -> Sketch:
        stroke = png(Image.fromarray(touched_HW.astype(np.uint8)))
        return replace(self, touched=(*self.touched[-UNDONE_AT_MOST:], stroke))

    def undone(self) -> Sketch:
        """The sketch without the last correction."""
        return replace(self, touched=self.touched[:-1])

    def cleared(self) -> Sketch:
        """The sketch without corrections."""
        return replace(self, touched=())

    def shown(self, cut: Cut, config: RegionConfig) -> Image.Image:
        """The picture with heat map and outline of the region, small enough for the page."""
        mask, picture = self.mask(cut, config), smaller(self.picture, SHOWN)
        factor = SHOWN // 2 // max(picture.size)
        if factor > 1:
            picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
        probability = np.zeros(picture.size[::-1], np.float32)
        if self.found is not None:
            grey = Image.fromarray((self.found.probability * 255).astype(np.uint8))
            probability = np.asarray(grey.resize(picture.size), np.float32) / 255
        return heat_map(picture, probability, mask.resize(picture.size, Image.Resampling.BOX))


def stroke_mask(size: tuple[int, int], points: Sequence[Sequence[float]], radius: float) -> Image.Image:
    """A brush stroke as a mask of mode "L" and of `size` (width, height), 255 = painted.

    At most 10,000 points (x, y) are used; they and the brush's radius are in pixels.
    Raises ValueError: no points, or points or radius that are not finite numbers.
    """
    try:
        line = [(float(x), float(y)) for x, y in points][:10_000]
        radius = min(max(0.5, float(radius)), max(size))
    except (TypeError, ValueError):
        line = []
    if not line or not np.isfinite([*np.ravel(line), radius]).all():
        raise ValueError("stroke: give points (x, y) and a radius, all in pixels")
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    if len(line) > 1:
        draw.line(line, fill=255, width=max(1, round(2 * radius)), joint="curve")
    for x, y in line:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


def _decoded(stroke: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stroke)))
