"""Perceptual hashes: 63 bits that survive scaling, recompression and small changes of tone, and ways to compare many.

Each bit records whether one of the lowest frequencies of the picture's discrete cosine transform is above their median
(Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). Crops, flips and rotations change
the hash.

Shape letters: S pictures.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
from PIL import Image

SIDE = 32  # pixels of the grey picture that is transformed
LOW = 8  # frequencies kept on each side
FLAT = 2.0  # standard deviation in grey levels; below it, a picture has no structure to recognise it by


def grey(picture: Image.Image) -> np.ndarray:
    """The small grey picture that is hashed, uint8 [32, 32]."""
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small)


def perceptual_hashes(grey_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of grey pictures, uint8 [S, 32, 32].

    Returns:
        uint64 [S], and bool [S]: false for a flat picture, whose hash would be noise.
    """
    values = grey_S.astype(np.float32)
    low = (_transform() @ values @ _transform().T).reshape(-1, LOW * LOW)
    low[:, 0] = -np.inf  # brightness does not identify a picture; its bit stays 0
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    hashes = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)[:, 0]
    return hashes, values.std((1, 2)) >= FLAT


@cache
def _transform() -> np.ndarray:
    """The rows of the discrete cosine transform that give the lowest frequencies, [8, 32]."""
    from scipy.fft import dct

    return dct(np.eye(SIDE, dtype=np.float32), axis=0, norm="ortho")[:LOW]


def near_any(hashes_S: np.ndarray, others: np.ndarray, distance: int) -> np.ndarray:
    """bool [S]: at most `distance` bits away from any of the others."""
    near = np.zeros(len(hashes_S), bool)
    for other in np.unique(others):
        near |= np.bitwise_count(hashes_S ^ other) <= distance
    return near


def later_copies(hashes_S: np.ndarray, distance: int) -> np.ndarray:
    """bool [S]: true where an earlier picture that stays is at most `distance` bits away.

    If two hashes differ in at most d bits, at least one of d + 1 groups of their bits is identical. Only hashes that
    share a group are therefore compared. The time grows with the square of the number of pictures, divided by
    2 ** (64 / (d + 1)).
    """
    copies = np.ones(len(hashes_S), bool)
    distinct, first = np.unique(hashes_S, return_index=True)
    order = np.argsort(first)
    edges = [64 * group // (distance + 1) for group in range(distance + 2)]
    shifts = [(low, (1 << (high - low)) - 1) for low, high in zip(edges, edges[1:], strict=False)]
    staying: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in shifts]
    for place, value in zip(first[order].tolist(), distinct[order].tolist(), strict=True):
        groups = [kept[value >> low & mask] for kept, (low, mask) in zip(staying, shifts, strict=True)]
        if any((value ^ other).bit_count() <= distance for group in groups for other in group):
            continue
        copies[place] = False
        for group in groups:
            group.append(value)
    return copies
