"""Ground truth of an edit, for evaluation only: no model and no region training imports this module."""

from __future__ import annotations

import numpy as np

from regionedit.microworld.edits import Edit
from regionedit.microworld.grammar import RELATIONS
from regionedit.microworld.renderer import coverage, silhouettes
from regionedit.microworld.scene import SIZE


def truth_mask(edit: Edit) -> np.ndarray:
    """Coverage of the true region, float32 [64, 64] in [0, 1].

    The named object before and after the edit; the new object for add; everything but the objects for background;
    everything for global; nothing for noop.
    """
    if edit.operation in ("global", "noop"):
        return np.full((SIZE, SIZE), float(edit.operation == "global"), np.float32)
    if edit.operation == "background":
        return 1 - coverage(edit.source).max(axis=0, initial=0)
    things = [edit.source.things[edit.named]] if edit.named is not None else []
    things += [edit.changed] if edit.changed else []
    return silhouettes(things).max(axis=0)


def object_map(edit: Edit) -> np.ndarray:
    """uint8 [64, 64]: 0 background, 1 the named object, 2 and up the other objects.

    add, background, global and noop name no object.
    """
    out = np.zeros((SIZE, SIZE), np.uint8)
    number = 2
    for index, visible in enumerate(coverage(edit.source)):
        if index == edit.named:
            out[visible > 0.5] = 1
        else:
            out[visible > 0.5] = number
            number += 1
    return out


def valid_space(edit: Edit) -> np.ndarray:
    """For add: bool [64, 64], the free pixels in the requested relation to the anchor (a 45 degree sector).

    Raises:
        ValueError: the edit adds nothing.
    """
    if edit.operation != "add":
        raise ValueError(f"operation: valid space is defined for add, not for {edit.operation}")
    anchor = edit.source.things[edit.anchor]
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    dx, dy = RELATIONS[edit.relation]
    along = (x - anchor.x) * dx + (y - anchor.y) * dy
    across = np.abs((x - anchor.x) * dy) + np.abs((y - anchor.y) * dx)
    free = coverage(edit.source).max(axis=0) < 0.5
    return (along > 0) & (across <= along + anchor.radius) & free
