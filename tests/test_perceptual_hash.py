"""Perceptual hashes: what they survive, what they tell apart, and that nothing near is overlooked among many."""

import io

import numpy as np
import perceptual_hash as hashing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from tests.crawls import jpeg, photograph


def hash_of(picture: Image.Image) -> int:
    hashes, detailed = hashing.perceptual_hashes(hashing.grey(picture)[None])
    assert detailed[0]
    return int(hashes[0])


SURVIVED = {
    "smaller": lambda p: p.resize((150, 130), Image.Resampling.LANCZOS),
    "stretched": lambda p: p.resize((512, 512)),
    "recompressed": lambda p: Image.open(io.BytesIO(jpeg(p, 30))),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.15),
    "grey": lambda p: p.convert("L"),
}
TOLD_APART = {"another": lambda p: photograph(99), "mirrored": ImageOps.mirror, "turned": lambda p: p.rotate(90)}


@pytest.mark.parametrize("change", [*SURVIVED, *TOLD_APART])
def test_what_a_hash_survives_and_what_it_tells_apart(change):
    for seed in range(5):
        picture = photograph(seed)
        difference = hash_of(picture) ^ hash_of((SURVIVED | TOLD_APART)[change](picture))
        assert difference.bit_count() <= 6 if change in SURVIVED else difference.bit_count() > 12


def test_the_hash_is_the_sign_of_the_lowest_frequencies_against_their_median():
    from scipy.fft import dctn

    pixels = hashing.grey(photograph(3))
    low = dctn(pixels.astype(np.float64), norm="ortho")[:8, :8].flatten()
    bits = [0, *(low[1:] > np.median(low[1:]))]
    assert hash_of(photograph(3)) == int("".join(str(int(bit)) for bit in bits), 2)


def test_a_flat_picture_has_no_hash():
    flat = np.full((1, 32, 32), 77, np.uint8)
    assert not hashing.perceptual_hashes(flat)[1][0]
    assert not hashing.perceptual_hashes(flat + np.random.default_rng(0).integers(0, 2, flat.shape, np.uint8))[1][0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 3, 7, 15, 1 << 40]), max_size=40), st.integers(0, 8))
def test_later_copies_are_those_that_comparing_everything_finds(values, distance):
    staying, copies = [], []
    for value in values:
        copies.append(any((value ^ other).bit_count() <= distance for other in staying))
        if not copies[-1]:
            staying.append(value)
    assert hashing.later_copies(np.array(values, np.uint64), distance).tolist() == copies
    near = [any((value ^ other).bit_count() <= distance for other in values[:5]) for value in values]
    assert hashing.near_any(np.array(values, np.uint64), np.array(values[:5], np.uint64), distance).tolist() == near


def test_near_copies_of_many_are_found():
    """A few flipped bits of each of many hashes, in an order that scatters them."""
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 2**63, 2000, np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(63, 3, replace=False)) for _ in originals], np.uint64)
    together = np.concatenate([originals, originals ^ flips])
    order = rng.permutation(len(together))
    copies = hashing.later_copies(together[order], 3)
    assert copies.sum() == 2000
    assert not hashing.later_copies(together[order], 2).any()
