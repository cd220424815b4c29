"""Search without learning: among many boxes, take the one whose blended picture has the lowest CLIP loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import torch

from regionedit import losses, masks
from regionedit.mask_sources.base import MaskSource
from regionedit.records import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.encoders import FrozenCLIP
    from regionedit.generators import Generator
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest

SIDES = (2, 3, 4)
"""Sides of the boxes, in eighths of the picture; a box can start at every eighth."""


class BoxSearch(MaskSource):
    """No training: for each picture the generator repaints everything once, from the target caption or the instruction.
    Every box blends source and proposal, and the box with the lowest CLIP loss (eq. 7 and 8 with weight 1) is the
    region.

    After LearnRegion (Lin et al. 2023), whose boxes grow around anchors of DINO and are chosen by CLIP losses.
    """

    uses_generator = True

    captions: ClassVar[frozenset[str]] = frozenset({"source", "target"})

    def __init__(self, clip: FrozenCLIP, generator: Generator):
        self.clip = clip
        self.generator = generator

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        return cls(encoders()[0], generator())

    @torch.no_grad()
    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        seeds = [request.noise for request in requests]
        texts = self.generator.texts_of(requests, captions)
        proposals_BCHW = self.generator.propose(images_BCHW, torch.ones_like(images_BCHW[:, :1]), texts, seeds)
        best_boxes = [
            self._best(image_CHW, proposal_CHW.to(image_CHW), caption)
            for image_CHW, proposal_CHW, caption in zip(images_BCHW, proposals_BCHW, captions, strict=True)
        ]
        mask_B1HW = torch.stack(best_boxes).float().cpu()
        return Region(mask_B1HW, mask_B1HW)

    def _best(self, image_CHW: Tensor, proposal_CHW: Tensor, caption: Captions) -> Tensor:
        """The best box of one picture, [1, H, W] of 0 and 1."""
        boxes_K1HW = boxes(tuple(image_CHW.shape[-2:])).to(image_CHW.device)
        composed_KCHW = masks.composite(
            proposal_CHW.expand(len(boxes_K1HW), -1, -1, -1), image_CHW.expand(len(boxes_K1HW), -1, -1, -1), boxes_K1HW
        )
        result_KD = self.clip.encode_image(composed_KCHW).global_BD
        source_1D = self.clip.encode_image(image_CHW[None]).global_BD
        source_text_1D, target_text_1D = self.clip.encode_text([caption.source, caption.target])[:, None]
        loss_K = losses.clip_guidance(result_KD, target_text_1D)
        roundings = self.clip.image_rounding, self.clip.text_rounding
        loss_K = loss_K + losses.clip_direction(result_KD, source_1D, target_text_1D, source_text_1D, *roundings)
        return boxes_K1HW[int(loss_K.argmin())]


def boxes(size: tuple[int, int]) -> Tensor:
    """All boxes of a picture of `size` (H, W), [K, 1, H, W] of 0 and 1; none is empty."""
    height, width = size
    all_boxes = []
    for side in SIDES:
        for top in range(8 - side + 1):
            for left in range(8 - side + 1):
                box_HW = torch.zeros(height, width)
                rows = slice(top * height // 8, -(-(top + side) * height // 8))
                columns = slice(left * width // 8, -(-(left + side) * width // 8))
                box_HW[rows, columns] = 1
                all_boxes.append(box_HW)
    return torch.stack(all_boxes)[:, None]
