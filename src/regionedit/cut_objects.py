"""Finds new objects that the mask cuts off: what was painted ends abruptly at the region's border.

Shape letters: B pictures of one size, C channels, H W their pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.ndimage import label

from regionedit.results import joined

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.records import Region
    from regionedit.results import Patch

JUMP = 0.15  # a step of colour across the border above this, of 1, is abrupt
PART = 0.05  # share of the border with abrupt steps above which something was cut off
RUN = 3  # or this many neighbouring pixels with abrupt steps: a thin object crosses a small part of the border
RUN_PART = 0.01  # and at least this share of the border


class Border(NamedTuple):
    """What was painted at the border of a region, compared with the source beyond.

    Args:
        pairs: length of the border, in pairs of neighbouring pixels; the picture's border is none of the region.
        abrupt: number of pairs across which the colour jumps in the edited picture but not in the source.
        run: number of pixels in the longest connected row of pixels that have such a pair.
    """

    pairs: int
    abrupt: int
    run: int

    @property
    def is_cut(self) -> bool:
        """Whether what was painted ends abruptly here."""
        return self.abrupt > PART * self.pairs or self.run >= max(RUN, RUN_PART * self.pairs)


def cut_off(images_BCHW: Tensor, region: Region, patches: Mapping[int, Sequence[Patch]]) -> list[int]:
    """The places of the pictures in which something was cut off, among those that have patches."""
    places = []
    for place, own_patches in patches.items():
        painted_CHW = images_BCHW[place].clone()
        for patch in own_patches:
            x0, y0, x1, y1 = patch.box
            painted_CHW[:, y0:y1, x0:x1] = patch.picture_CHW
        if border_of(painted_CHW, images_BCHW[place], region.mask_B1HW[place, 0] > 0).is_cut:
            places.append(place)
    return places


def border_of(painted_CHW: Tensor, source_CHW: Tensor, inside_HW: Tensor) -> Border:
    """Compare the generator's picture with the source along the region's border.

    Where the source itself has an edge there, as under a mask that fits its object, a jump is right.

    Args:
        painted_CHW: the generator's picture, [0, 1]; only pixels inside are read.
        source_CHW: [0, 1].
        inside_HW: bool, the region.
    """
    abrupt_HW, abrupt, pairs = torch.zeros_like(inside_HW), 0, 0
    for axis in (0, 1):
        length = inside_HW.shape[axis] - 1
        for here, there in ((0, 1), (1, 0)):  # each pixel and the next one, and the other way round
            inside, outside = inside_HW.narrow(axis, here, length), ~inside_HW.narrow(axis, there, length)
            beyond_CHW = source_CHW.narrow(axis + 1, there, length)
            now_HW, before_HW = (
                (picture_CHW.narrow(axis + 1, here, length) - beyond_CHW).abs().amax(0)
                for picture_CHW in (painted_CHW, source_CHW)
            )
            border_HW = inside & outside
            jumps_HW = border_HW & (now_HW > JUMP) & (before_HW < JUMP / 2)
            abrupt_HW.narrow(axis, here, length).logical_or_(jumps_HW)
            abrupt += int(jumps_HW.sum())
            pairs += int(border_HW.sum())
    rows_HW, _ = label(abrupt_HW.numpy(), np.ones((3, 3)))
    return Border(pairs, abrupt, int(np.bincount(rows_HW.ravel())[1:].max(initial=0)))


def with_notes_on_cuts(region: Region, cut: Sequence[int], still: Sequence[int], pixels: int) -> Region:
    """The region with notes: at the places `cut` it was grown by `pixels`; at `still`, something is still cut off."""
    notes = list(region.notes or ("",) * len(region.mask_B1HW))
    for place in cut:
        end = ", but it still does: grow the region further, or draw it larger" if place in still else ""
        note = f"what was painted ended abruptly at the region's border: painted again, grown by {pixels} px{end}"
        notes[place] = joined(notes[place], note)
    return replace(region, notes=tuple(notes))
