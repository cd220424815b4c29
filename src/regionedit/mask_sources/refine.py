"""Tighten regions to objects: SAM segments the object at a region's peak, within the region's box.

Shape letters: B pictures, H W their pixels, K instructions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from regionedit.images import to_pictures
from regionedit.mask_sources import prompts
from regionedit.masks import binarize, divide, mask_iou

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from regionedit.mask_sources.segmenter import Segmenter
    from regionedit.records import Region

AGREEMENT = 0.1
"""SAM's mask replaces a region if their IoU is at least this; below it, SAM segmented another object."""


class Refiner:
    """Replaces regions by SAM's masks of the objects in them."""

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter

    def refine(self, images_BCHW: Tensor, region: Region) -> Region:
        """The region with tighter masks; probabilities stay those of the source, and empty regions stay empty.

        The parts of several instructions are refined one by one, since each lies on its own object. A part that SAM's
        mask overlaps too little is kept as it was, with a note.
        """
        several = region.per_instruction_BKHW is not None
        coarse_BKHW = region.per_instruction_BKHW if several else region.mask_B1HW
        rows, notes = [], []
        for b, picture in enumerate(to_pictures(images_BCHW)):
            tight = [self._tight(picture, part_HW, region.probability_B1HW[b, 0]) for part_HW in coarse_BKHW[b]]
            rows.append(torch.stack([mask_HW for mask_HW, _ in tight]))
            own_note = [region.notes[b]] if region.notes else []
            notes.append("; ".join(filter(None, own_note + [note for _, note in tight])))
        tight_BKHW = torch.stack(rows)
        mask_B1HW = tight_BKHW.amax(1, keepdim=True)
        parts_BKHW = divide(mask_B1HW, tight_BKHW) if several else None
        return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW, notes=tuple(notes))

    def _tight(self, picture: Image, coarse_HW: Tensor, probability_HW: Tensor) -> tuple[Tensor, str]:
        prompt = prompts.of_region(coarse_HW.numpy(), probability_HW.numpy())
        if not prompt:
            return coarse_HW, ""
        tight_HW = binarize(self.segmenter.segment(picture, prompt), 0.5)
        overlap = float(mask_iou(tight_HW[None], coarse_HW[None]))
        if overlap < AGREEMENT:
            return coarse_HW, f"refine: the region was kept, SAM's mask does not lie on it (IoU {overlap:.2f})"
        return tight_HW, ""
