"""The source survives an edit: every mode, format and depth, bit for bit outside the region."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from stored_pictures import HEIGHT, KINDS, WIDTH, store

from regionedit.images import to_pictures
from regionedit.originals import (
    as_configured,
    encoded,
    open_source,
    original_of,
    pixels_of,
    source_digest,
    with_original,
)
from regionedit.results import Patch, changed_outside, compose


def painted(view: Image.Image, mask: Image.Image, seed: int = 0, match: float = 0.0) -> Image.Image:
    """The view with random colours in the mask."""
    return compose(view, [Patch((0, 0, WIDTH, HEIGHT), random_edit(seed))], mask, match)


def random_edit(seed: int) -> torch.Tensor:
    return torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def reopened(result: Image.Image, folder, kind: str = "PNG") -> Image.Image:
    path = folder / f"result.{kind.lower()}"
    path.write_bytes(encoded(result, kind))
    return open_source(path)


def random_mask(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.choice([0, 0, 1, 128, 255], (HEIGHT, WIDTH)).astype(np.uint8))


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99), match=st.sampled_from([0.0, 2.0]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pixels_outside_the_mask_are_those_of_the_file(tmp_path, kind, seed, match):
    path, stored = store(tmp_path, *kind, seed=seed)
    view, mask = open_source(path), random_mask(seed)
    assert np.array_equal(pixels_of(view), stored) and pixels_of(view).dtype == stored.dtype
    result = painted(view, mask, seed, match)
    again = reopened(result, tmp_path)
    outside, kept = np.asarray(mask) == 0, pixels_of(again)
    assert kept.dtype == stored.dtype and kept.shape == stored.shape
    assert np.array_equal(kept[outside], stored[outside])
    assert np.array_equal(kept, pixels_of(result)) and np.array_equal(np.asarray(again), np.asarray(result))
    assert changed_outside(view, result, mask) == 0
    if stored.shape[2] % 2 == 0:
        assert np.array_equal(kept[..., -1], stored[..., -1])


@pytest.mark.parametrize(("suffix", "mode"), KINDS)
def test_every_kind_of_file_is_kept_without_an_edit(tmp_path, suffix, mode):
    path, stored = store(tmp_path, suffix, mode)
    assert np.array_equal(pixels_of(reopened(open_source(path), tmp_path)), stored)


@pytest.mark.parametrize("mode", ["L16", "RGB16", "RGBA16", "RGB12", "RGBA", "LA"])
def test_what_is_painted_looks_as_the_model_meant_it(tmp_path, mode):
    """The view of the result is the edit, where the picture is opaque, in grey for a grey picture."""
    path, stored = store(tmp_path, "png", mode)
    mask = Image.new("L", (WIDTH, HEIGHT), 255)
    view = open_source(path)
    seen = np.asarray(painted(view, mask)).astype(int)
    meant = to_pictures(random_edit(0)[None])[0]
    meant = meant.convert("L").convert("RGB") if mode.startswith("L") else meant
    opaque = np.full((HEIGHT, WIDTH), True) if stored.shape[2] % 2 else stored[..., -1] == np.iinfo(stored.dtype).max
    assert np.abs(seen - np.asarray(meant))[opaque].max() <= 1
    clear = np.zeros_like(opaque) if stored.shape[2] % 2 else stored[..., -1] == 0
    assert np.array_equal(pixels_of(painted(view, mask))[clear], stored[clear])
