"""Where an editor changed a picture, found by comparing source and result; robust to what is no edit.

A generator that repaints the whole picture often moves it by a few pixels, shifts its colours a little, and passes it
through an autoencoder or JPEG. `change_map` removes these before it compares:

1. Shift: the largest correlation of clipped gradients proposes a global shift; it is used if the pictures then agree
   clearly better than without.
2. Colour: a gain and an offset for each channel, fitted to the pixels that agree; not used if an offset is large,
   because then the edit itself changed the colours.
3. Edges: a pixel has changed only if its value lies outside the range of the other picture's 3 x 3 neighbourhood. So
   neither the rest of a shift nor ringing at an edge counts.
4. A threshold, and a binary opening.

A global edit within these limits, such as a slightly darker picture, is taken for drift and leaves no change.

Shape letters: H W pixels, C channels, N pixels that both pictures show.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import binary_opening, maximum_filter, minimum_filter

TAU = 0.1  # mean over the channels of |difference| above which a pixel has changed
OPENING = 3  # side in pixels of a square that fits into real changes; smaller ones are compression noise
WORKING_SIDE = 512  # larger pictures are compared at this size of the longer side
LARGEST_SHIFT = 8  # pixels at the working size
CLEARLY = 0.9  # a shift is used if it lowers the disagreement to less than this share
GRADIENT_CAP = 0.1  # so that an edited object with strong edges does not outweigh the rest
LARGEST_OFFSET = 0.12  # of a channel, in [0, 1]
LARGEST_GAIN = 1.25  # its inverse is the smallest
SAMPLED_SIDE = 128  # shifts are compared on a grid of about this many pixels a side
ROUNDS = 4  # of fitting the colours to the pixels that agree


def change_map(source: Image.Image, edited: Image.Image) -> np.ndarray:
    """Bool [H, W] of the source's size: the pixels that an edit changed. `edited` is resized to it (bicubic).

    Pixels that the shift has moved out of the edited picture count as unchanged.
    """
    size = source.size
    scale = min(1.0, WORKING_SIDE / max(size))
    working = tuple(max(1, round(side * scale)) for side in size)
    source_HWC, edited_HWC = (_pixels(picture, size, working) for picture in (source, edited))
    shift = global_shift(source_HWC, edited_HWC)
    changed_HW = np.zeros(source_HWC.shape[:2], bool)
    here, there = overlap(changed_HW.shape, shift)
    changed_HW[here] = _changed(source_HWC[here], edited_HWC[there])
    if working == size:
        return changed_HW
    return np.asarray(Image.fromarray(changed_HW).resize(size, Image.Resampling.NEAREST))


def global_shift(source_HWC: np.ndarray, edited_HWC: np.ndarray) -> tuple[int, int]:
    """(rows, columns) by which the edited picture lies below and right of the source; (0, 0) unless clearly better."""
    row, column = _correlation_peak(source_HWC, edited_HWC)
    none = _disagreement(source_HWC, edited_HWC, (0, 0))
    steps = [(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    most = _largest_shift(source_HWC.shape)
    near = [shift for shift in steps if abs(shift[0]) <= most[0] and abs(shift[1]) <= most[1]]
    costs = {shift: _disagreement(source_HWC, edited_HWC, shift) for shift in near}
    best = min(costs, key=costs.get)
    return best if costs[best] < CLEARLY * none else (0, 0)


def overlap(shape: tuple[int, int], shift: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the source and the part of the edited picture that show the same place."""
    here = tuple(slice(max(0, -by), side - max(0, by)) for side, by in zip(shape, shift, strict=True))
    there = tuple(slice(max(0, by), side - max(0, -by)) for side, by in zip(shape, shift, strict=True))
    return here, there


def without_drift(source_NC: np.ndarray, edited_NC: np.ndarray) -> np.ndarray:
    """The source with the gain and offset of each channel that make it agree with the edited picture; [N, C].

    Unchanged if any channel needs more than LARGEST_OFFSET or LARGEST_GAIN.
    """
    moved_NC = np.empty_like(source_NC)
    for channel, (source_N, edited_N) in enumerate(zip(source_NC.T, edited_NC.T, strict=True)):
        gain, offset = 1.0, float(np.median(edited_N - source_N))
        for _ in range(ROUNDS):
            agree_N = np.abs(edited_N - gain * source_N - offset) < TAU
            if not agree_N.any():
                return source_NC
            x_N, y_N = source_N[agree_N], edited_N[agree_N]
            spread = float(x_N.var())
            slope = float(((x_N - x_N.mean()) * (y_N - y_N.mean())).mean()) / spread if spread > 1e-4 else 1.0
            gain = min(max(slope, 1 / LARGEST_GAIN), LARGEST_GAIN)
            offset = float(y_N.mean() - gain * x_N.mean())
        moved_NC[:, channel] = gain * source_N + offset
        if abs(np.median(moved_NC[:, channel] - source_N)) > LARGEST_OFFSET:
            return source_NC
    return moved_NC


def _pixels(picture: Image.Image, size: tuple[int, int], working: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1], first at the source's size and then at the working size."""
    picture = picture.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if working != size:
        picture = picture.resize(working, Image.Resampling.BOX)
    return np.asarray(picture, np.float32) / 255


def _changed(source_HWC: np.ndarray, edited_HWC: np.ndarray) -> np.ndarray:
    shape = source_HWC.shape
    moved_HWC = without_drift(source_HWC.reshape(-1, shape[-1]), edited_HWC.reshape(-1, shape[-1])).reshape(shape)
    apart_HW = np.maximum(_outside_range(edited_HWC, moved_HWC), _outside_range(moved_HWC, edited_HWC))
    return binary_opening(apart_HW > TAU, np.ones((OPENING, OPENING), bool))


def _outside_range(a_HWC: np.ndarray, b_HWC: np.ndarray) -> np.ndarray:
    """[H, W] mean over the channels of how far a lies outside the values of b's 3 x 3 neighbourhood."""
    high_HWC, low_HWC = maximum_filter(b_HWC, (3, 3, 1)), minimum_filter(b_HWC, (3, 3, 1))
    return np.maximum(np.maximum(a_HWC - high_HWC, low_HWC - a_HWC), 0).mean(-1)


def _disagreement(source_HWC: np.ndarray, edited_HWC: np.ndarray, shift: tuple[int, int]) -> float:
    """Mean of the absolute difference, without drift and at most TAU, of some pixels that both pictures show."""
    here, there = overlap(source_HWC.shape[:2], shift)
    step = max(1, max(source_HWC.shape) // SAMPLED_SIDE)
    both = (source_HWC[here][::step, ::step], edited_HWC[there][::step, ::step])
    source_NC, edited_NC = (part.reshape(-1, part.shape[-1]) for part in both)
    apart_N = np.abs(edited_NC - without_drift(source_NC, edited_NC)).mean(-1)
    return float(np.minimum(apart_N, TAU).mean())


def _correlation_peak(source_HWC: np.ndarray, edited_HWC: np.ndarray) -> tuple[int, int]:
    """The shift, at most LARGEST_SHIFT and a quarter of the side, at which the clipped gradients correlate most."""
    spectra = [np.fft.fft2(_gradient(picture)) for picture in (source_HWC, edited_HWC)]
    correlation_HW = np.fft.ifft2(spectra[1] * spectra[0].conj()).real
    rows, columns = _largest_shift(correlation_HW.shape)
    near = np.roll(correlation_HW, (rows, columns), (0, 1))[: 2 * rows + 1, : 2 * columns + 1]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return int(row) - rows, int(column) - columns


def _largest_shift(shape: tuple[int, ...]) -> tuple[int, int]:
    return min(LARGEST_SHIFT, shape[0] // 4), min(LARGEST_SHIFT, shape[1] // 4)


def _gradient(picture_HWC: np.ndarray) -> np.ndarray:
    """[H, W] complex: the gradient of the channels' mean, clipped at GRADIENT_CAP; 0 in the last row and column."""
    grey_HW = picture_HWC.mean(-1)
    gradient_HW = np.zeros(grey_HW.shape, np.complex64)
    gradient_HW[:-1, :-1] = np.diff(grey_HW, axis=1)[:-1] + 1j * np.diff(grey_HW, axis=0)[:, :-1]
    return gradient_HW * np.minimum(1, GRADIENT_CAP / np.abs(gradient_HW).clip(1e-6))
