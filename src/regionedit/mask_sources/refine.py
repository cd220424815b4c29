"""Tighten regions to objects: SAM segments the object at a region's peak, within the region's box.

Shape letters: B pictures, H W their pixels, K instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
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

AGREEMENT = 0.25
"""SAM's mask replaces a region if their IoU is at least this; below it, SAM segmented another object."""


class Refiner:
    """Replaces regions by SAM's masks of the objects in them."""

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter

    def refine(self, images_BCHW: Tensor, region: Region) -> Region:
        """The region with tighter masks; probabilities stay those of the source, and empty regions stay empty.

        The parts of several instructions are refined one by one, since each lies on its own object, and so are the
        boxes of a region that consists of boxes. What SAM's mask overlaps too little is kept as it was, with a note.
        """
        several = region.per_instruction_BKHW is not None
        coarse_BKHW = region.per_instruction_BKHW if several else region.mask_B1HW
        rows, notes = [], []
        for b, picture in enumerate(to_pictures(images_BCHW)):
            boxes = region.boxes[b] if region.boxes else ()
            tight = [
                [self._tight(picture, single_HW, region.probability_B1HW[b, 0]) for single_HW in _singles(part_HW, own)]
                for part_HW, own in zip_longest(coarse_BKHW[b], boxes, fillvalue=())
            ]
            rows.append(torch.stack([torch.stack([mask_HW for mask_HW, _ in part]).amax(0) for part in tight]))
            own_note = [region.notes[b]] if region.notes else []
            notes.append("; ".join(filter(None, own_note + [note for part in tight for _, note in part])))
        tight_BKHW = torch.stack(rows)
        mask_B1HW = tight_BKHW.amax(1, keepdim=True)
        parts_BKHW = divide(mask_B1HW, tight_BKHW) if several else None
        return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW, notes=tuple(notes), boxes=())

    def _tight(self, picture: Image, coarse_HW: Tensor, probability_HW: Tensor) -> tuple[Tensor, str]:
        prompt = prompts.of_region(coarse_HW.numpy(), probability_HW.numpy())
        if not prompt:
            return coarse_HW, ""
        tight_HW = binarize(self.segmenter.segment(picture, prompt), 0.5)
        overlap = float(mask_iou(tight_HW[None], coarse_HW[None]))
        if overlap < AGREEMENT:
            return coarse_HW, f"refine: the region was kept, SAM's mask does not lie on it (IoU {overlap:.2f})"
        return tight_HW, ""


def _singles(part_HW: Tensor, boxes: Sequence[tuple[int, int, int, int]]) -> list[Tensor]:
    """The part of a region in each of its boxes; without boxes, the part as a whole."""
    singles = []
    for x0, y0, x1, y1 in boxes:
        single_HW = torch.zeros_like(part_HW)
        single_HW[y0:y1, x0:x1] = part_HW[y0:y1, x0:x1]
        singles.append(single_HW)
    return singles or [part_HW]
