"""Undoes the shift and zoom of a generator that moves the whole picture.

Both pictures are compared outside the mask. Gauss-Newton steps on their difference find the motion, from coarse to fine
(Lucas and Kanade 1981). Weights give little influence to large differences, which the generator may have made on
purpose, and the median difference in brightness is subtracted.

Shape letters: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SMALLEST = 16  # shorter side of the coarsest pictures that are compared, in pixels
STEPS = 12  # at most, for each size of the pictures
ENOUGH = 0.02  # a step below this many pixels is the last one
FURTHEST = 0.1  # share of the longer side; a larger motion is taken for a wrong estimate
LEAST = 0.25  # pixels; a smaller motion is not undone, because resampling would cost more sharpness than it gains
EXACT = 0.05  # pixels; a motion this near to whole pixels is taken for one, so that nothing is resampled


@dataclass(frozen=True)
class Motion:
    """Where a generator moved a picture: `down` and `right` in pixels, after a zoom about the picture's centre."""

    down: float = 0.0
    right: float = 0.0
    zoom: float = 1.0

    def positions(self, height: int, width: int) -> np.ndarray:
        """Where each pixel of the source lies in the moved picture, float64 [2, H, W]: rows and columns."""
        middle = np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
        offset = np.array([self.down, self.right]).reshape(2, 1, 1)
        return (np.indices((height, width)) - middle) * self.zoom + middle + offset

    def largest(self, height: int, width: int) -> float:
        """The largest distance, in rows or columns, that a pixel was moved."""
        grown = abs(self.zoom - 1) / 2
        return max(abs(self.down) + grown * height, abs(self.right) + grown * width)

    def __str__(self) -> str:
        """As a message to the user."""
        zoom = f" and scaled it by {self.zoom:.3f}" if self.zoom != 1 else ""
        return f"the generator moved the picture by ({self.right:+.1f}, {self.down:+.1f}) px{zoom}; this was undone"


def registered(edited_BCHW: Tensor, source_BCHW: Tensor, mask_B1HW: Tensor) -> tuple[Tensor, list[Motion | None]]:
    """The edited pictures moved back onto their sources, and the motion that was undone; None where nothing was.

    A motion is undone only if that lowers the mean difference between both pictures outside the mask. A picture that is
    masked as a whole cannot be compared and stays as it is.

    Args:
        edited_BCHW, source_BCHW: [0, 1], on the CPU; of one size.
        mask_B1HW: above 0 = edited, in the generator's own view: before it moved anything.
    """
    outcomes = [_registered(*row) for row in zip(edited_BCHW, source_BCHW, mask_B1HW[:, 0], strict=True)]
    return torch.stack([picture for picture, _ in outcomes]), [motion for _, motion in outcomes]


def _registered(edited_CHW: Tensor, source_CHW: Tensor, mask_HW: Tensor) -> tuple[Tensor, Motion | None]:
    edited, source = edited_CHW.double().numpy(), source_CHW.double().numpy()
    outside_HW = mask_HW.numpy() == 0
    size = outside_HW.shape
    motion = _rounded(motion_between(edited.mean(0), source.mean(0), outside_HW), size)
    if not LEAST <= motion.largest(*size) <= FURTHEST * max(size):
        return edited_CHW, None
    moved_back, gain = _moved_back(edited, source, outside_HW, motion)
    # Resampling alone softens a picture and may bring it nearer to any other one, in both directions alike.
    reverse = Motion(-motion.down, -motion.right, 1 / motion.zoom)
    if gain <= 2 * max(0.0, _moved_back(edited, source, outside_HW, reverse)[1]):
        return edited_CHW, None
    return torch.from_numpy(moved_back).to(edited_CHW).clamp(0, 1), motion


def _moved_back(
    edited_CHW: np.ndarray, source_CHW: np.ndarray, outside_HW: np.ndarray, motion: Motion
) -> tuple[np.ndarray, float]:
    """The edited picture without the motion, and by how much its mean difference from the source becomes smaller."""
    from scipy.ndimage import map_coordinates

    positions = motion.positions(*outside_HW.shape)
    moved_back_CHW = np.stack([map_coordinates(band_HW, positions, order=3, mode="nearest") for band_HW in edited_CHW])
    compared_HW = outside_HW & _inside(positions)
    if not compared_HW.any():
        return moved_back_CHW, 0.0
    before, after = (np.abs(one - source_CHW)[:, compared_HW].mean() for one in (edited_CHW, moved_back_CHW))
    return moved_back_CHW, float(before - after)


def motion_between(edited_HW: np.ndarray, source_HW: np.ndarray, outside_HW: np.ndarray) -> Motion:
    """The motion from a grey source to a grey edited picture, from the pixels where `outside_HW` is true."""
    motion, before = Motion(), None
    for edited, source, share in _coarse_to_fine(edited_HW, source_HW, outside_HW.astype(float)):
        if before is not None:
            growth = [now / then for now, then in zip(edited.shape, before, strict=True)]
            motion = Motion(motion.down * growth[0], motion.right * growth[1], motion.zoom)
        motion, before = _refined(motion, edited, source, share > 0.99), edited.shape
    return motion


def _coarse_to_fine(*pictures_HW: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The pictures at a half, a quarter, ... of their size, the smallest first and themselves last."""
    from scipy.ndimage import gaussian_filter

    if min(pictures_HW[0].shape) >= 2 * SMALLEST:
        height, width = (side // 2 * 2 for side in pictures_HW[0].shape)
        halves = [gaussian_filter(one, 0.7)[:height, :width] for one in pictures_HW]
        halves = [(one[::2, ::2] + one[1::2, ::2] + one[::2, 1::2] + one[1::2, 1::2]) / 4 for one in halves]
        yield from _coarse_to_fine(*halves)
    yield pictures_HW


def _refined(motion: Motion, edited_HW: np.ndarray, source_HW: np.ndarray, outside_HW: np.ndarray) -> Motion:
    """The motion after up to `STEPS` Gauss-Newton steps at one size."""
    from scipy.ndimage import map_coordinates

    size = edited_HW.shape
    from_middle = np.indices(size) - np.array([size[0] - 1, size[1] - 1]).reshape(2, 1, 1) / 2
    reach = max(size) / 2  # the zoom is measured in pixels at the border, so that all unknowns are alike
    for _ in range(STEPS):
        positions = motion.positions(*size)
        compared_HW = outside_HW & _inside(positions)
        if compared_HW.sum() < SMALLEST:
            return motion
        moved_back_HW = map_coordinates(edited_HW, positions, order=1, mode="nearest")
        down_HW, right_HW = np.gradient(moved_back_HW)
        zoom_HW = (down_HW * from_middle[0] + right_HW * from_middle[1]) / reach
        slopes = np.stack([one[compared_HW] for one in (down_HW, right_HW, zoom_HW, np.ones(size))])
        difference = (moved_back_HW - source_HW)[compared_HW]
        difference -= np.median(difference)
        usual = 1.5 * np.median(np.abs(difference)) + 1e-3
        weighted = slopes / (1 + (difference / usual) ** 2)
        normal = weighted @ slopes.T
        step = np.linalg.solve(normal + 1e-6 * np.trace(normal) * np.eye(4), -weighted @ difference)[:3].tolist()
        motion = Motion(motion.down + step[0], motion.right + step[1], motion.zoom + step[2] / reach)
        if max(map(abs, step)) < ENOUGH or motion.largest(*size) > 2 * FURTHEST * max(size):
            return motion
    return motion


def _rounded(motion: Motion, size: tuple[int, int]) -> Motion:
    """The motion with whole pixels and no zoom where it differs from them by less than can be measured."""
    if abs(motion.zoom - 1) * max(size) / 2 >= LEAST:
        return motion
    down, right = (round(one) if abs(one - round(one)) < EXACT else one for one in (motion.down, motion.right))
    return Motion(float(down), float(right))


def _inside(positions: np.ndarray) -> np.ndarray:
    """Whether these positions, [2, H, W], lie in a picture of that size: [H, W]."""
    last = np.array(positions.shape[1:]).reshape(2, 1, 1) - 1
    return ((positions >= 0) & (positions <= last)).all(0)
