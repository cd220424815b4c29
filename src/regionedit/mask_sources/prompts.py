"""Prompts for SAM: points on an object and a box around it, from the user's marks or from a region that was found.

Shape letters: H W pixels of the picture. Points are (x, y), boxes (x0, y0, x1, y1) with x1 and y1 excluded, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regionedit.images import box_mask, require_inside, require_mask

if TYPE_CHECKING:
    from PIL.Image import Image

    from regionedit.records import EditRequest

SCRIBBLE_POINTS = 5
"""Points taken from a scribble: enough to span a stroke, and no more than SAM was trained with."""


@dataclass(frozen=True)
class Prompt:
    """Points on one object and a box around it; empty without either."""

    points: tuple[tuple[int, int], ...] = ()
    box: tuple[int, int, int, int] | None = None

    def __bool__(self) -> bool:
        return bool(self.points or self.box)


def of_request(request: EditRequest) -> Prompt:
    """The clicks and the box of a request; without a click, a drawn mask is read as a scribble.

    A scribble gives points and, if the request has no box, a box. With a click, the mask is left to other mask sources,
    as in `sam - drawn`.

    Raises:
        ValueError: nothing is marked; a click or a box outside the picture; a mask of another size.
    """
    if not request.marks:
        raise ValueError(
            "click: mask source `sam` needs a click on the object (--click x,y), a box around it (--box x0,y0,x1,y1) "
            "or a scribble over it (--mask FILE)"
        )
    points = request.click or ()
    require_inside(request.image.size, points)
    box = None if request.box is None else box_mask(request.image.size, request.box).getbbox()
    if request.mask is not None and not points:
        require_mask(request.mask, request.image)
        scribble = of_scribble(request.mask)
        points, box = scribble.points, box or scribble.box
    return Prompt(points, box)


def of_scribble(mask: Image) -> Prompt:
    """Points spread over a drawn mask, away from its edge, and the box around it; an empty mask gives an empty
    prompt."""
    drawn_HW = np.asarray(mask.convert("L")) > 0
    if not drawn_HW.any():
        return Prompt()
    depth_HW = _depth(drawn_HW)
    # Points on a stroke's middle line are safer than those on its edge, which may already lie beside the object.
    rows, columns = np.nonzero(depth_HW >= min(2, depth_HW.max()))
    points = [deepest(drawn_HW)]
    apart = np.full(len(rows), np.inf)
    for _ in range(SCRIBBLE_POINTS - 1):
        apart = np.minimum(apart, np.hypot(columns - points[-1][0], rows - points[-1][1]))
        if not apart.max() > 0:
            break
        farthest = int(apart.argmax())
        points.append((int(columns[farthest]), int(rows[farthest])))
    return Prompt(tuple(points), mask.getbbox())


def of_region(mask_HW: np.ndarray, probability_HW: np.ndarray) -> Prompt:
    """A region's peak, its most probable pixel, and the box around it; an empty region gives an empty prompt.

    Of several equally probable pixels, the peak is the one deepest inside them.
    """
    inside_HW = mask_HW > 0
    if not inside_HW.any():
        return Prompt()
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    peak_HW = inside_HW & (probability_HW >= probability_HW[inside_HW].max())
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return Prompt((deepest(peak_HW),), box)


def deepest(mask_HW: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel that lies farthest inside a mask that is not empty."""
    row, column = np.unravel_index(int(_depth(mask_HW).argmax()), mask_HW.shape)
    return int(column), int(row)


def _depth(mask_HW: np.ndarray) -> np.ndarray:
    """How far each pixel lies inside the mask; the picture's border counts as an edge."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1]
