"""The object that the user marked with a click, a box or a scribble, segmented by Segment Anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import torch

from regionedit.images import to_pictures
from regionedit.mask_sources import prompts
from regionedit.mask_sources.base import MaskSource
from regionedit.mask_sources.segmenter import Segmenter, load_segmenter
from regionedit.masks import binarize
from regionedit.records import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest


class Sam(MaskSource):
    """SAM's mask for the request's marks, hard, at the picture's own size; needs no training and works with any
    generator.

    If SAM finds nothing at the click, the region is empty.
    """

    marks: ClassVar[frozenset[str]] = frozenset({"mask", "box", "click"})
    refinable: ClassVar[bool] = False

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        return cls(load_segmenter(config.sam))

    def to(self, device: str | torch.device) -> Self:
        self.segmenter.to(device)
        return self

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        probability_B1HW = torch.zeros_like(images_BCHW[:, :1], device="cpu")
        for b, (picture, request) in enumerate(zip(to_pictures(images_BCHW), requests, strict=True)):
            if prompt := prompts.of_request(request):
                probability_B1HW[b, 0] = self.segmenter.segment(picture, prompt)
        return Region(binarize(probability_B1HW, 0.5), probability_B1HW)
