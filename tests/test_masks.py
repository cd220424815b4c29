"""Masks: hand-computed values, and properties that hold for every size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regionedit import masks

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
quick = settings(max_examples=25, deadline=None)


def random_mask(seed: int, size: tuple[int, int], batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(seed))


def test_upsample_by_hand():
    probability = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    expected = torch.tensor([[0.1, 0.1, 0.2, 0.2]] * 2 + [[0.3, 0.3, 0.4, 0.4]] * 2)
    assert torch.equal(masks.upsample(probability, 2, (4, 4))[0, 0], expected)
    stripes = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert masks.upsample(stripes, 2, (3, 3))[0, 0, 0].tolist() == [0.0, 1.0, 1.0], "the patch under a pixel's centre"
    rows = masks.upsample(stripes, 2, (4, 4), "bilinear")[0, 0]
    assert torch.allclose(rows, torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(4, 4))


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="5 patches do not fill a grid of 2 x 2"):
        masks.upsample(torch.zeros(1, 5), 2, (4, 4))
    with pytest.raises(ValueError, match="'gumbel' is unknown"):
        masks.binarize(torch.zeros(1, 4), estimator="gumbel")
    with pytest.raises(ValueError, match="one shape"):
        masks.mask_iou(torch.zeros(1, 4), torch.zeros(1, 9))


@quick
@given(size=sizes, grid=st.integers(1, 8), seed=st.integers(0, 1000))
def test_downsample_keeps_the_covered_area(size, grid, seed):
    mask = random_mask(seed, size)
    coverage = masks.downsample(mask, grid)
    assert coverage.shape == (2, grid * grid)
    assert torch.allclose(coverage.mean(1), mask.mean((1, 2, 3)), atol=1e-5)
    assert coverage.min() >= 0 and coverage.max() <= 1 + 1e-5


@quick
@given(grid=st.integers(1, 6), factor=st.integers(1, 5), seed=st.integers(0, 1000))
def test_downsample_undoes_nearest_upsample(grid, factor, seed):
    probability = torch.rand(2, grid * grid, generator=torch.Generator().manual_seed(seed))
    mask = masks.upsample(probability, grid, (grid * factor, grid * factor))
    assert torch.allclose(masks.downsample(mask, grid), probability, atol=1e-5)


def test_downsample_by_hand_where_patches_cut_pixels():
    mask = torch.tensor([[[[1.0, 0.0, 0.0]]]])
    assert torch.allclose(masks.downsample(mask, 2), torch.tensor([[2 / 3, 0.0, 2 / 3, 0.0]]))


def test_plain_threshold_is_strict_and_has_no_gradient():
    probability = torch.tensor([0.0, 0.5, 0.51, 1.0], requires_grad=True)
    hard = masks.binarize(probability)
    assert hard.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert not hard.requires_grad


@quick
@given(seed=st.integers(0, 1000), threshold=st.floats(0.05, 0.95))
def test_straight_through_is_hard_forward_and_identity_backward(seed, threshold):
    probability = random_mask(seed, (5, 7)).requires_grad_()
    mask = masks.binarize(probability, threshold, "straight_through")
    assert torch.equal(mask, masks.binarize(probability, threshold))
    weights = torch.randn(mask.shape)
    (mask * weights).sum().backward()
    assert torch.equal(probability.grad, weights)


@quick
@given(size=sizes, pixels=st.integers(0, 9), seed=st.integers(0, 1000))
def test_dilate_is_a_windowed_maximum(size, pixels, seed):
    mask = random_mask(seed, size)
    expected = torch.nn.functional.max_pool2d(mask, 2 * pixels + 1, 1, pixels)
    assert torch.equal(masks.dilate(mask, pixels), expected)


def test_dilate_rows_and_columns_apart():
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 2, 2] = 1
    grown = masks.dilate(mask, (0, 2))
    assert grown[0, 0, 2].tolist() == [1.0] * 5 and grown.sum() == 5


@quick
@given(size=sizes, pixels=st.floats(0, 6), seed=st.integers(0, 1000))
def test_feather_only_softens_inwards(size, pixels, seed):
    mask = (random_mask(seed, size) > 0.3).float()
    soft = masks.feather(mask, pixels)
    assert torch.equal(soft > 0, mask > 0)
    assert (soft <= mask).all()


def test_feather_by_hand():
    mask = torch.zeros(1, 1, 3, 8)
    mask[..., 2:] = 1
    expected = [0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1]
    assert torch.allclose(masks.feather(mask, 2)[0, 0], torch.tensor(expected).expand(3, 8))
    assert torch.equal(masks.feather(torch.ones(1, 1, 3, 3), 5), torch.ones(1, 1, 3, 3))


@quick
@given(size=sizes, seed=st.integers(0, 1000))
def test_composite_is_exact_at_both_ends(size, seed):
    draw = torch.Generator().manual_seed(seed)
    edited, source = (torch.rand(2, 3, *size, generator=draw) for _ in range(2))
    mask = torch.randint(0, 3, (2, 1, *size), generator=draw) / 2
    result = masks.composite(edited, source, mask)
    wide = mask.expand_as(source)
    assert torch.equal(result[wide == 0], source[wide == 0])
    assert torch.equal(result[wide == 1], edited[wide == 1])
    assert torch.allclose(result, mask * edited + (1 - mask) * source, atol=1e-6)


def test_composite_leaves_an_unchanged_picture_alone_under_any_soft_mask():
    source = torch.rand(2, 3, 9, 9)
    assert torch.equal(masks.composite(source, source, torch.rand(2, 1, 9, 9)), source)


def test_composite_keeps_undefined_pixels_out():
    source = torch.rand(1, 3, 2, 2)
    edited = torch.full_like(source, float("nan"))
    mask = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    result = masks.composite(edited, source, mask)
    assert torch.equal(result[..., 0, :], source[..., 0, :])
    assert torch.isnan(result[..., 1, 1]).all()


def test_composite_gives_a_hard_mask_the_gradient_that_lets_it_grow():
    edited, source = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    mask = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]], requires_grad=True)
    masks.composite(edited, source, mask).sum().backward()
    assert torch.allclose(mask.grad, (edited - source).sum(1, keepdim=True), atol=1e-6)


def test_mask_iou_by_hand():
    first = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    second = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0] * 4, [0.0] * 4, [1.0, 0.0, 0.0, 0.0]])
    assert torch.allclose(masks.mask_iou(first, second), torch.tensor([1 / 3, 1.0, 0.0, 0.5 / 1.5]))
    assert masks.mask_iou(first.bool()[:, None], second.bool()[:, None]).shape == (4,)


@quick
@given(size=sizes, seed=st.integers(0, 2**62))
def test_random_masks_are_hard_and_never_empty(size, seed):
    made = masks.random_hard([seed, seed + 1], size)
    assert made.shape == (2, 1, *size)
    assert ((made == 0) | (made == 1)).all()
    assert (made.sum((1, 2, 3)) >= 1).all()


def test_random_masks_are_keyed_by_seed_alone_and_a_quarter_is_everything():
    made = masks.random_hard(range(400), (16, 16))
    assert torch.equal(made[7:8], masks.random_hard([7], (16, 16)))
    everything = (made.mean((1, 2, 3)) == 1).float().mean()
    assert 0.18 < everything < 0.32
    assert len({mask.numpy().tobytes() for mask in made}) > 200
