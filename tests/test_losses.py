"""Every equation against numpy, written down independently from the paper, and against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from regionedit import losses
from regionedit.config import LossConfig
from regionedit.records import StepOutputs

B, N, D, K = 3, 9, 5, 4


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def outputs():
    return StepOutputs(
        probability_BN=draw(B, N, seed=1).sigmoid(),
        projected_fused_BD=draw(B, D, seed=2),
        projected_patches_BD=draw(B, D, seed=3),
        source_BD=draw(B, D, seed=4),
        result_BD=draw(B, D, seed=5),
        source_patches_BND=draw(B, N, D, seed=6),
        result_patches_BND=draw(B, N, D, seed=7),
        source_text_BD=draw(B, D, seed=8),
        target_text_BD=draw(B, D, seed=9),
        regions_BKN=(draw(B, K, N, seed=10) > 0).float(),
        log_weights_BK=draw(B, K, seed=11).log_softmax(1),
        commitment=0.5,
    )


def cosine(a, b):
    return (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))


def tensors(outputs):
    return {name: value for name, value in vars(outputs).items() if isinstance(value, torch.Tensor)}


def by_hand(outputs, name):
    """Eq. 4, 5, 7-9 and the regularisers, sample by sample, with loops where the paper has indices."""
    o = {name: value.double().numpy() for name, value in tensors(outputs).items()}
    values = []
    for b in range(len(o["probability_BN"])):
        p = o["probability_BN"][b].reshape(3, 3)
        if name == "region":
            fits = [
                np.prod([q if inside else 1 - q for q, inside in zip(p.flatten(), region, strict=True)])
                for region in o["regions_BKN"][b]
            ]
            weights = np.exp(o["log_weights_BK"][b])
            value = -np.log(sum(w * fit**0.5 for w, fit in zip(weights, fits, strict=True))) / (0.5 * N)
        elif name == "semantic_edited":
            value = 1 - cosine(o["projected_fused_BD"][b], o["target_text_BD"][b])
        elif name == "semantic_original":
            value = 1 - cosine(o["projected_patches_BD"][b], o["source_text_BD"][b])
        elif name == "clip_guidance":
            value = 1 - cosine(o["result_BD"][b], o["target_text_BD"][b])
        elif name == "clip_direction":
            change = o["result_BD"][b] - o["source_BD"][b]
            value = 1 - cosine(change, o["target_text_BD"][b] - o["source_text_BD"][b])
        elif name == "clip_structure":
            before, after = o["source_patches_BND"][b], o["result_patches_BND"][b]
            value = sum(
                (cosine(before[i], before[j]) - cosine(after[i], after[j])) ** 2 for i in range(N) for j in range(N)
            ) / (N * N)
        elif name == "area":
            value = p.sum() / 9
        elif name == "entropy":
            value = (p - p**2).sum() / 9
        elif name == "total_variation":
            value = (np.abs(p[1:] - p[:-1]).sum() + np.abs(p[:, 1:] - p[:, :-1]).sum()) / 12
        values.append(value)
    return values


@pytest.mark.parametrize("name", losses.TERMS)
def test_every_term_by_hand(outputs, name):
    value_B = losses.TERMS[name](outputs)
    assert value_B.shape == (B,) and value_B.dtype == torch.float32
    assert np.allclose(value_B.numpy(), by_hand(outputs, name), atol=1e-5)


def test_structure_does_not_grow_with_n():
    """Two orthogonal patches become equal: two of four similarities move by one."""
    before = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    after = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]])
    assert losses.clip_structure(before, after).item() == pytest.approx(0.5)
    four_times = losses.clip_structure(before.repeat(1, 4, 1), after.repeat(1, 4, 1))
    assert four_times.item() == pytest.approx(0.5)


@pytest.mark.parametrize("side", ["image", "text", "both"])
def test_a_zero_direction_costs_nothing_and_pulls_nowhere(side):
    result, source, target_text, source_text = (draw(B, D, seed=s) for s in range(4))
    if side != "text":
        result[1] = source[1]
    if side != "image":
        target_text[1] = source_text[1]
    inputs = [tensor.requires_grad_() for tensor in (result, source, target_text, source_text)]
    cost = losses.clip_direction(*inputs)
    assert cost[1] == 0 and (cost[[0, 2]] > 0).all()
    cost.sum().backward()
    for tensor in inputs:
        assert torch.isfinite(tensor.grad).all()
        assert (tensor.grad[1] == 0).all() and (tensor.grad[0] != 0).any()


def test_rounding_is_no_direction_but_a_small_change_is():
    source, text = torch.full((2, 4), 10.0), torch.eye(4)[:2]
    result = source.clone()
    result[0, 0] += 1e-6
    result[1, 0] += 1e-2
    cost = losses.clip_direction(result, source, text, torch.zeros(2, 4))
    assert cost[0] == 0 and cost[1] == pytest.approx(1.0, abs=1e-5)


def test_coarser_products_need_a_larger_change():
    source, text = torch.full((3, 4), 10.0), torch.eye(4)[:3]
    result = source.clone()
    result[0, 0] += 1e-2  # 5e-4 of the norm
    result[1:, 0] += 1e-1
    zero = torch.zeros(3, 4)
    assert losses.clip_direction(result, source, text, zero, image_rounding=2.0**-11).tolist() == [
        0, pytest.approx(1.0, abs=1e-5), pytest.approx(1.0, abs=1e-5)
    ]  # fmt: skip
    alike = text + 1e-3 * text.flip(1)
    assert (losses.clip_direction(result, source, alike, text, text_rounding=2.0**-8) == 0).all()
    assert (losses.clip_direction(result, source, alike, text) > 0).all()


def test_total_variation_needs_a_square_grid():
    assert losses.total_variation(torch.tensor([[0.3]])).item() == 0.0
    with pytest.raises(ValueError, match="8 patches"):
        losses.total_variation(torch.zeros(1, 8))


# Which inputs of a step each term may pull at; everything else must stay untouched by it.
PULLS = {
    "semantic_edited": {"projected_fused_BD", "target_text_BD"},
    "semantic_original": {"projected_patches_BD", "source_text_BD"},
    "clip_guidance": {"result_BD", "target_text_BD"},
    "clip_direction": {"result_BD", "source_BD", "target_text_BD", "source_text_BD"},
    "clip_structure": {"source_patches_BND", "result_patches_BND"},
    "region": {"probability_BN", "regions_BKN", "log_weights_BK"},
    "area": {"probability_BN"},
    "entropy": {"probability_BN"},
    "total_variation": {"probability_BN"},
}


@pytest.mark.parametrize("name", losses.TERMS)
def test_gradients_are_finite_and_go_where_they_should(outputs, name):
    fields = {name: value.clone().requires_grad_() for name, value in tensors(outputs).items()}
    losses.TERMS[name](StepOutputs(**fields)).sum().backward()
    pulled = {key for key, tensor in fields.items() if tensor.grad is not None and tensor.grad.abs().sum() > 0}
    assert pulled == PULLS[name]
    assert all(torch.isfinite(fields[key].grad).all() for key in pulled)


@pytest.mark.parametrize("name", losses.TERMS)
def test_losses_are_float32_even_under_autocast(outputs, name):
    expected = losses.TERMS[name](outputs)
    with torch.autocast("cpu", torch.bfloat16):
        inside = losses.TERMS[name](outputs)
    assert inside.dtype == torch.float32
    assert torch.allclose(inside, expected, atol=1e-6)


def test_total_is_eq_11(outputs):
    config = LossConfig(
        alpha=0.3, beta=0.7, clip_guidance=1.1, clip_direction=1.3, clip_structure=1.7, area=0.2, entropy=-0.4,
        total_variation=0.6, region=0.9,
    )  # fmt: skip
    loss, terms = losses.total(outputs, config)
    t = {name: np.mean(by_hand(outputs, name)) for name in losses.TERMS}
    semantic = t["semantic_edited"] + t["semantic_original"]
    clip = 1.1 * t["clip_guidance"] + 1.3 * t["clip_direction"] + 1.7 * t["clip_structure"]
    expected = 0.3 * semantic + 0.7 * clip + 0.2 * t["area"] - 0.4 * t["entropy"] + 0.6 * t["total_variation"]
    expected += 0.9 * t["region"]
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert {name: tuple(value.shape) for name, value in terms.items()} == {name: (B,) for name in losses.TERMS}


def test_a_weight_of_zero_switches_a_term_off(outputs):
    undefined = dataclasses.replace(outputs, projected_fused_BD=torch.full((B, D), float("nan")))
    loss, terms = losses.total(undefined, LossConfig(alpha=0))
    assert torch.isfinite(loss)
    assert "semantic_edited" not in terms and "total_variation" not in terms and "clip_guidance" in terms
    with pytest.raises(ValueError, match="every weight is 0"):
        losses.total(outputs, LossConfig(alpha=0, beta=0, area=0, entropy=0))


def test_terms_of_the_result_are_those_that_its_gradient_comes_from(outputs):
    """What is taken chunk by chunk is the share of the total that the composed picture has, no more and no less."""
    config = LossConfig(clip_guidance=1.1, clip_direction=1.3, clip_structure=1.7, total_variation=0.6)
    fields = {name: value.clone().requires_grad_() for name, value in tensors(outputs).items()}
    losses.total(StepOutputs(**fields), config)[0].backward()
    whole = fields["result_BD"].grad, fields["result_patches_BND"].grad
    again = {name: value.clone().requires_grad_() for name, value in tensors(outputs).items()}
    losses.of_the_result(StepOutputs(**again), config).mean().backward()
    torch.testing.assert_close((again["result_BD"].grad, again["result_patches_BND"].grad), whole)
    nothing = losses.of_the_result(StepOutputs(**again), LossConfig(beta=0))
    assert torch.equal(nothing, torch.zeros(B))


def test_a_searched_region_without_commitment_is_the_cross_entropy_with_the_mean_region(outputs):
    o = outputs
    target_BN = (o.log_weights_BK.exp()[..., None] * o.regions_BKN).sum(1)
    expected_B = torch.nn.functional.binary_cross_entropy(o.probability_BN, target_BN, reduction="none").mean(1)
    found_B, near_B = (
        losses.searched_region(o.probability_BN, o.regions_BKN, o.log_weights_BK, commitment)
        for commitment in (0.0, 1e-4)
    )
    torch.testing.assert_close(found_B, expected_B)
    torch.testing.assert_close(near_B, expected_B, atol=1e-3, rtol=0)


def test_a_committed_region_settles_for_one_of_two_good_ones_and_padding_does_not_count():
    regions_1KN = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    log_weights_1K = torch.tensor([[0.5, 0.5, 0.0]]).log()
    both_1N, one_1N = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.99, 0.01]])
    for commitment, better, worse in ((0.0, both_1N, one_1N), (1.0, one_1N, both_1N)):
        of_better, of_worse = (
            losses.searched_region(p, regions_1KN, log_weights_1K, commitment) for p in (better, worse)
        )
        assert of_better < of_worse and torch.isfinite(of_worse).all()
    saturated_1N = torch.tensor([[1.0, 0.0]], requires_grad=True)
    losses.searched_region(saturated_1N, regions_1KN.flip(1), log_weights_1K, 1.0).sum().backward()
    assert saturated_1N.grad.isfinite().all()
