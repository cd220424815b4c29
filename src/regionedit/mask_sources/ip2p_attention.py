"""The region to which InstructPix2Pix itself attends for the word that names the object."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Self

import torch.nn.functional as F

from regionedit import masks
from regionedit.attention import keyword_map
from regionedit.generators import InstructPix2Pix, load_generator
from regionedit.mask_sources.base import MaskSource, cut_masks
from regionedit.records import Region
from regionedit.resampling import fit, unfit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest


class Ip2pAttention(MaskSource):
    """The masks of Focus on Your Instruction (Guo & Lin 2024), section 4.1: the cross-attention of the first denoising
    step to each sub-instruction's keyword, sharpened by eq. 2 and thresholded.

    Needs no training. The paper draws the threshold from 0.4 to 0.7 and enlarges by whole cells, which is
    `region.upsample: nearest`. The seeds are those of the edit: if InstructPix2Pix edits, the attention comes from the
    first steps of that edit. For any other generator, `region.attention` configures an InstructPix2Pix that only
    provides attention.
    """

    uses_generator = True
    needs_keywords = True

    def __init__(self, generator: InstructPix2Pix, config: RegionConfig):
        self.generator = generator
        self.config = config

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        loaded = generator()
        if isinstance(loaded, InstructPix2Pix):
            return cls(loaded, config)
        try:
            return cls(load_generator(config.attention), config)
        except ValueError as error:
            raise ValueError(f"region.attention (for ip2p_attention): {error}") from None

    def to(self, device: str | torch.device) -> Self:
        self.generator.to(device)
        return self

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        fitted_BChw, placed = fit(images_BCHW, self.generator.size, self.generator.multiple)
        seeds = [request.noise for request in requests]
        attention_BKrc = self.generator.attend(fitted_BChw, requests, seeds).cpu()
        grid, size = tuple(attention_BKrc.shape[-2:]), tuple(fitted_BChw.shape[-2:])
        inner = placed.inner_height / size[0], placed.inner_width / size[1]
        patches = grid[0] * inner[0], grid[1] * inner[1]
        maps_BKrc = _sharpen_inside(attention_BKrc, *map(ceil, patches))
        maps_B1hw = masks.upsample(maps_BKrc.flatten(0, 1).flatten(1), grid, size, self.config.upsample)
        probability_BKHW = unfit(maps_B1hw, placed).reshape(*attention_BKrc.shape[:2], *images_BCHW.shape[-2:])
        single_BKHW = cut_masks(probability_BKHW, patches, self.config)
        return Region(
            single_BKHW.amax(1, keepdim=True),
            probability_BKHW.amax(1, keepdim=True),
            per_instruction_BKHW=single_BKHW,
            patches_BN=maps_BKrc.amax(1).flatten(1) if grid[0] == grid[1] and inner == (1, 1) else None,
        )


def _sharpen_inside(attention_BKrc: Tensor, rows: int, columns: int) -> Tensor:
    """Eq. 2 over the cells that show the picture, so that padding does not affect where a map is brightest."""
    sharp_BKrc = keyword_map(attention_BKrc[..., :rows, :columns])
    bottom, right = attention_BKrc.shape[-2] - rows, attention_BKrc.shape[-1] - columns
    return F.pad(sharp_BKrc, (0, right, 0, bottom), mode="replicate")
