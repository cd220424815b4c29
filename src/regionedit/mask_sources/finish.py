"""The last steps of every region, whatever its mask source: grow or shrink the mask, then soften its edge.

Shape letters: B pictures, H W their pixels, K instructions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regionedit import masks

if TYPE_CHECKING:
    from regionedit.config import RegionConfig
    from regionedit.records import Region


def finish(region: Region, config: RegionConfig) -> Region:
    """The region with `grow` and `feather` applied, in this order; both are pixels of the picture.

    The mask source itself applies `threshold` and `dilate` (in patches) on its own grid. Probabilities do not change.
    The parts of several instructions follow the mask: a new pixel belongs to the nearest part.
    """
    if not (config.grow or config.feather):
        return region
    mask_B1HW = masks.feather(masks.grow(region.mask_B1HW, config.grow), config.feather)
    parts_BKHW = region.per_instruction_BKHW
    parts_BKHW = None if parts_BKHW is None else masks.divide(mask_B1HW, parts_BKHW)
    return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW)
