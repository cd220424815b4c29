"""The region on the page: what was found, cut by the sliders, and what a person added and erased by hand.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from regionedit import masks
from regionedit.display import heat_map
from regionedit.images import png, smaller, to_pictures, to_tensor
from regionedit.mask_sources.base import cut_masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regionedit.config import RegionConfig
    from regionedit.records import FoundRegion

UNTOUCHED, ADDED, ERASED = 128, 255, 0
UNDONE_AT_MOST = 30
SHOWN = 1024
"""Longer side, in pixels, of the region as the page shows it, at most; a small picture is enlarged to half of it, so
that the outline is a thin line."""


@dataclass(frozen=True)
class Cut:
    """Where the sliders stand: as in `RegionConfig`."""

    threshold: float
    grow: int
    feather: float

    @classmethod
    def of(cls, config: RegionConfig) -> Cut:
        return cls(config.threshold, config.grow, config.feather)


@dataclass(frozen=True)
class Sketch:
    """A picture, the region that was found in it, and the corrections by hand, which win over the sliders.

    Args:
        picture: RGB.
        found: before `grow` and `feather`, which are the sliders'; None before anything was looked for.
        instruction: that it was found for.
        given: the region came with a file; nobody finds it again.
        touched: PNG of mode "L": ADDED, ERASED or UNTOUCHED for each pixel; the last one counts, the others are there
            to undo. Compressed, since a session keeps many.
    """

    picture: Image.Image
    found: FoundRegion | None = None
    instruction: str = ""
    touched: tuple[bytes, ...] = ()
    given: bool = False

    def is_stale(self, instruction: str) -> bool:
        """The region has to be found before this instruction is carried out; one that is only painted never has."""
        return not self.touched if self.found is None else self.instruction != instruction

    def is_own(self, cut: Cut, config: RegionConfig) -> bool:
        """The region is the editor's own, found or not yet: nothing was corrected and no slider moved."""
        return not self.touched and not self.given and cut == Cut.of(config)

    def mask(self, cut: Cut, config: RegionConfig) -> Image.Image:
        """The region as mode "L", 255 = edit. Needs no model."""
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
        return to_pictures(masks.feather(mask_B1HW, cut.feather))[0]

    def _cut(self, config: RegionConfig):
        import torch

        patches = self.found.patches
        if patches is None:  # no grid of its own: there is nothing that `dilate` could be counted in
            patches, config = np.zeros((1, 1)), replace(config, dilate=0.0)
        return cut_masks(torch.from_numpy(self.found.probability)[None, None].float(), patches.shape, config)

    def corrected(self, change: Image.Image, adds: bool) -> Sketch:
        """With a change of mode "L", not 0 = changed, added to the region or erased from it."""
        touched_HW = _decoded(self.touched[-1]).copy() if self.touched else np.full(change.size[::-1], UNTOUCHED)
        touched_HW[np.asarray(change) > 0] = ADDED if adds else ERASED
        stroke = png(Image.fromarray(touched_HW.astype(np.uint8)))
        return replace(self, touched=(*self.touched[-UNDONE_AT_MOST:], stroke))

    def undone(self) -> Sketch:
        """Without the last correction."""
        return replace(self, touched=self.touched[:-1])

    def cleared(self) -> Sketch:
        """Without corrections."""
        return replace(self, touched=())

    def shown(self, cut: Cut, config: RegionConfig) -> Image.Image:
        """The heat map and the region's outline over the picture, small enough for a page."""
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
    """A brush's stroke as mode "L", 255 = painted.

    Args:
        size: width and height of the picture.
        points: (x, y) in pixels of it.
        radius: of the brush, in pixels.

    Raises:
        ValueError: no points, too many, or no numbers.
    """
    try:
        line = [(float(x), float(y)) for x, y in points][:10_000]
        radius = min(max(0.5, float(radius)), max(size))
    except (TypeError, ValueError):
        line = []
    if not line or not np.isfinite([*np.ravel(line), radius]).all():
        raise ValueError("stroke: no points (x, y) and radius in pixels")
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    if len(line) > 1:
        draw.line(line, fill=255, width=max(1, round(2 * radius)), joint="curve")
    for x, y in line:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


def _decoded(stroke: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stroke)))
