"""How regions are scored, in training and in evaluation alike.

Shape letters: K objects of one picture, H W pixels.
"""

from __future__ import annotations

import numpy as np

TRUTH_COVERAGE = 0.25
"""A cell of a grid belongs to the true region if the region covers more than this share of it."""

LOCAL_OPERATIONS = ("replace", "recolour", "remove")
"""Operations whose region is an object in the source picture; their mean is the main score."""

THRESHOLDS = np.linspace(0.01, 0.99, 99, dtype=np.float32)
"""The thresholds among which `iou_best` takes the one with the best mean."""

TIE = 1e-4
"""Means that differ by at most this count as equal."""


def pointing(probability_HW: np.ndarray, objects_KHW: np.ndarray, named: int) -> float:
    """1 if the named object has the highest mean probability of all objects, else 0.

    A tie of k objects that includes the named one scores 1/k, so a flat map scores chance.

    Args:
        probability_HW: in [0, 1].
        objects_KHW: the visible part of every object, bool or coverage in [0, 1].
        named: index of the object that the instruction names.
    """
    mean_K = (objects_KHW * probability_HW).sum((1, 2)) / objects_KHW.sum((1, 2)).clip(1e-6)
    highest_K = np.isclose(mean_K, mean_K.max(), rtol=0, atol=TIE)
    return float(highest_K[named] / highest_K.sum())
