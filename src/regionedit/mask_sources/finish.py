"""The last steps of every region, whatever found it: grown or shrunk, moved at random, softened.

Shape letters: B pictures, H W their pixels, K instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from regionedit import masks
from regionedit.generators import noise_seed

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.records import EditRequest, Region


def finish(region: Region, config: RegionConfig, requests: Sequence[EditRequest]) -> Region:
    """The region with `grow`, `jitter` and `feather` applied, in this order; all three are pixels of the picture.

    What a source does on its own grid (`threshold`, `dilate` in patches) is done by the source. Probabilities stay.
    Parts of several instructions follow the mask: a pixel that is new belongs to the nearest part.
    """
    if not (config.grow or config.jitter or config.feather):
        return region
    mask_B1HW, parts_BKHW = masks.grow(region.mask_B1HW, config.grow), region.per_instruction_BKHW
    if config.jitter:
        moves = [_move(request, config.jitter) for request in requests]
        mask_B1HW = _moved(mask_B1HW, moves)
        parts_BKHW = None if parts_BKHW is None else _moved(parts_BKHW, moves)
    mask_B1HW = masks.feather(mask_B1HW, config.feather)
    parts_BKHW = None if parts_BKHW is None else masks.divide(mask_B1HW, parts_BKHW)
    return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW)


def _move(request: EditRequest, most: int) -> tuple[int, int]:
    rng = np.random.default_rng(noise_seed(request.seed, "jitter", request.id))
    right, down = rng.integers(-most, most + 1, 2)
    return int(right), int(down)


def _moved(maps_BKHW: Tensor, moves: Sequence[tuple[int, int]]) -> Tensor:
    return torch.stack([masks.shift(maps_KHW, *move) for maps_KHW, move in zip(maps_BKHW, moves, strict=True)])
