"""Operations on a whole mask: invert it, fill its holes, keep its largest part, its convex hull, the box around it.

Shape letters: H W pixels. Masks are float32 HW in [0, 1], 1 = edit; every value above 0 belongs to the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def operation_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """`"fill, hull"`, or a sequence of names, as a tuple. Raises ValueError: an unknown name."""
    names = given.split(",") if isinstance(given, str) else given
    names = tuple(name.strip() if isinstance(name, str) else name for name in names)
    names = tuple(name for name in names if name != "")
    for name in names:
        if not isinstance(name, str) or name not in OPERATIONS:
            raise ValueError(f"mask_operations: {str(name)[:40]!r} is unknown; there are: {', '.join(OPERATIONS)}")
    return names


def operated(mask_HW: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The mask after the operations, in their order."""
    for name in names:
        mask_HW = OPERATIONS[name](mask_HW)
    return mask_HW


def invert(mask_HW: np.ndarray) -> np.ndarray:
    """1 minus the mask."""
    return 1 - mask_HW


def fill(mask_HW: np.ndarray) -> np.ndarray:
    """Holes become part of the mask: what is not connected with the picture's border. A diagonal step closes a hole."""
    from scipy.ndimage import label

    parts_HW, count = label(mask_HW <= 0)
    rim = np.unique(np.concatenate([parts_HW[0], parts_HW[-1], parts_HW[:, 0], parts_HW[:, -1]]))
    is_hole = np.ones(count + 1, bool)
    is_hole[[0, *rim]] = False
    return np.where(is_hole[parts_HW], mask_HW.dtype.type(1), mask_HW)


def largest(mask_HW: np.ndarray) -> np.ndarray:
    """The connected part with the most pixels, the first of equal ones; pixels that touch at a corner are connected."""
    from scipy.ndimage import label

    parts_HW, count = label(mask_HW > 0, np.ones((3, 3)))
    if count < 2:
        return mask_HW
    sizes = np.bincount(parts_HW.ravel())
    sizes[0] = 0
    return np.where(parts_HW == sizes.argmax(), mask_HW, mask_HW.dtype.type(0))


def hull(mask_HW: np.ndarray) -> np.ndarray:
    """Every pixel whose centre lies in the convex hull of the mask's pixel centres; what it adds is edited in full."""
    drawn_HW = mask_HW > 0
    rows = np.flatnonzero(drawn_HW.any(1))
    if not len(rows):
        return mask_HW
    width = mask_HW.shape[1]
    first = _below(rows, drawn_HW[rows].argmax(1))  # the left and the right end of each row are enough
    last = -_below(rows, drawn_HW[rows, ::-1].argmax(1) - (width - 1))
    columns, between = np.arange(width), np.arange(rows[0], rows[-1] + 1)
    inside_HW = np.zeros_like(drawn_HW)
    inside_HW[between] = (columns >= first[:, None] - 1e-6) & (columns <= last[:, None] + 1e-6)
    return np.where(inside_HW & ~drawn_HW, mask_HW.dtype.type(1), mask_HW)


def _below(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The largest convex curve that is nowhere above the values, in every row from the first to the last."""
    corners: list[tuple[int, int]] = []
    for y, x in zip(rows.tolist(), values.tolist(), strict=True):
        while len(corners) > 1:
            (y0, x0), (y1, x1) = corners[-2:]
            if (x1 - x0) * (y - y0) < (x - x0) * (y1 - y0):  # the corner lies below the line from the one before it
                break
            corners.pop()
        corners.append((y, x))
    return np.interp(np.arange(rows[0], rows[-1] + 1), *zip(*corners, strict=True))


def box(mask_HW: np.ndarray) -> np.ndarray:
    """The smallest upright box around the mask, edited in full; an empty mask stays empty."""
    inside_HW = mask_HW > 0
    if not inside_HW.any():
        return mask_HW
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    result_HW = np.zeros_like(mask_HW)
    result_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    return result_HW


OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    function.__name__: function for function in (invert, fill, largest, hull, box)
}
"""Name of an operation -> its function from mask to mask."""
