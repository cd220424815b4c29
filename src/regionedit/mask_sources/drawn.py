"""The region that the user drew: a mask or a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from regionedit.images import box_mask, require_mask, to_tensor, upright_rgb
from regionedit.mask_sources.base import MaskSource
from regionedit.records import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from regionedit.records import Captions, EditRequest


class Drawn(MaskSource):
    """The request's mask, grey values included, or its box; needs no training and works with any generator."""

    marks: ClassVar[frozenset[str]] = frozenset({"mask", "box"})
    refinable: ClassVar[bool] = False

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        mask_B1HW = to_tensor([drawn_mask(request) for request in requests])
        return Region(mask_B1HW, mask_B1HW)


def drawn_mask(request: EditRequest) -> Image:
    """The request's region as a mask of mode "L", at the picture's size.

    Raises:
        ValueError: no mask or box, or both; a mask of another size or mode; a box outside the picture.
    """
    if request.mask is not None and request.box is not None:
        raise ValueError("mask, box: give one of them")
    if request.box is not None:
        return box_mask(request.image.size, request.box)
    if request.mask is None:
        raise ValueError("mask: mask source `drawn` needs a drawn mask (--mask FILE) or a box (--box x0,y0,x1,y1)")
    require_mask(request.mask, upright_rgb(request.image))
    return request.mask.convert("L")
