"""Equations 2-7 of Focus on Your Instruction (FoI) against plain loops, and the U-Net's attention processors."""

import numpy as np
import pytest
import torch

from regionedit.attention import (
    NO_SUB_INSTRUCTION,
    Modulation,
    Recorder,
    attached,
    keyword_map,
    layer_grid,
    modulate,
    strengthening,
)
from tests.tiny_models import seeded

TOKENS, WIDTH, HEADS = 5, 6, 2


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def unet():
    """A U-Net with cross-attention at half and a quarter of the latent's size, two heads."""
    from diffusers import UNet2DConditionModel

    with seeded(0):
        return UNet2DConditionModel(
            in_channels=8,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=HEADS,
            norm_num_groups=4,
        ).eval()


@pytest.fixture(scope="module")
def layer():
    from diffusers.models.attention_processor import Attention

    with seeded(0):
        return Attention(query_dim=8, cross_attention_dim=WIDTH, heads=HEADS, dim_head=4)


@torch.no_grad()
def run(unet, context_SND, latent=(8, 8), seed=0):
    return unet(draw(len(context_SND), 8, *latent, seed=seed), 500, encoder_hidden_states=context_SND).sample


def by_hand_map(map_rc):
    """Eq. 2 with loops over cells and the kernel written out."""
    rows, columns = map_rc.shape
    kernel = np.array([[np.exp(-(i * i + j * j) / (2 * 0.5**2)) for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    kernel /= kernel.sum()
    padded = np.pad(map_rc, 1, mode="reflect")
    smooth = np.array([[(padded[r : r + 3, c : c + 3] * kernel).sum() for c in range(columns)] for r in range(rows)])
    for _ in range(3):
        smooth = smooth**2
        smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return smooth


def by_hand_attention(x, y, mask, alpha, xi):
    """Eq. 3 and 6 for one head, [Q, N]."""
    result = np.zeros_like(x)
    for q in range(x.shape[0]):
        logits = [
            (x[q, n] + alpha[n] * xi * (max(x[q]) - x[q, n])) * mask[q, n] + y[q, n] * (1 - mask[q, n])
            for n in range(x.shape[1])
        ]
        result[q] = np.exp(logits) / np.exp(logits).sum()
    return result


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (2, 7)])
def test_equation_2_equals_a_computation_by_hand(grid):
    maps = draw(2, 3, *grid).softmax(-1)
    sharp = keyword_map(maps)
    for b in range(2):
        for k in range(3):
            np.testing.assert_allclose(sharp[b, k], by_hand_map(maps[b, k].double().numpy()), atol=2e-5)
    assert torch.allclose(sharp.amax((2, 3)), torch.ones(2, 3)) and not sharp.amin((2, 3)).any()


def test_a_flat_map_is_empty_one_row_has_a_peak_and_scale_does_not_matter():
    for flat in (torch.full((1, 1, 4, 4), 1 / 77), torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 1, 1)):
        assert not keyword_map(flat).any()
    assert keyword_map(torch.tensor([[[[0.1, 0.1, 0.9, 0.1, 0.1]]]])).argmax() == 2
    maps = draw(1, 1, 4, 4).abs()
    torch.testing.assert_close(keyword_map(maps), keyword_map(maps * 1e-3), atol=1e-5, rtol=1e-4)


def test_equation_7():
    assert strengthening(0) == 0 and strengthening(1) == 0.05
    assert strengthening(0.5) == pytest.approx(0.05 * 0.0625)


def test_equations_3_and_6_equal_a_computation_by_hand():
    x, y = draw(2, HEADS, 6, TOKENS), draw(2, HEADS, 6, TOKENS, seed=1)
    mask = (draw(2, 1, 6, TOKENS, seed=2) > 0).float()
    alpha = draw(2, 1, 1, TOKENS, seed=3).abs() * 3
    found = modulate(x, y, mask, alpha, 0.04)
    for b in range(2):
        for e in range(HEADS):
            given = (t.double().numpy() for t in (x[b, e], y[b, e], mask[b, 0], alpha[b, 0, 0]))
            np.testing.assert_allclose(found[b, e], by_hand_attention(*given, 0.04), atol=1e-6)


OWNERS = [[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1]]
STRENGTHS = [[1.0, 3.0], [2.0]]


@pytest.mark.parametrize(("latent", "grid"), [((8, 8), (4, 4)), ((4, 6), (2, 3)), ((4, 6), (4, 6))])
@torch.no_grad()
def test_a_modulated_layer_equals_a_computation_by_hand(layer, latent, grid):
    masks = (draw(2, 2, *latent, seed=4) > 0).float()
    masks[1, 1] = 0  # the second picture has one sub-instruction
    queries = grid[0] * grid[1]
    hidden, context = draw(6, queries, 8), draw(6, TOKENS, WIDTH, seed=1)
    handler = Modulation(masks, OWNERS, STRENGTHS).at(0.9)
    unchanged = layer(hidden, encoder_hidden_states=context)
    found = handler(layer, hidden, context, lambda h, c: layer(h, encoder_hidden_states=c))
    torch.testing.assert_close(found[2:], unchanged[2:], atol=1e-6, rtol=1e-5)
    step = latent[0] // grid[0]
    for b in range(2):
        cells = masks[b, :, step // 2 :: step, step // 2 :: step].flatten(1)  # the cell at each centre
        union = cells.amax(0)
        mask = torch.stack([union if k == NO_SUB_INSTRUCTION else cells[k] for k in OWNERS[b]], 1).numpy()
        alpha = [0 if k == NO_SUB_INSTRUCTION else STRENGTHS[b][k] for k in OWNERS[b]]
        mixed = []
        for e in range(HEADS):
            part = slice(4 * e, 4 * e + 4)
            x = layer.to_q(hidden[b])[:, part] @ layer.to_k(context[b])[:, part].T / 4**0.5
            y = layer.to_q(hidden[b + 2])[:, part] @ layer.to_k(context[b + 2])[:, part].T / 4**0.5
            attention = by_hand_attention(x.numpy(), y.numpy(), mask, alpha, 0.05 * 0.9**4)
            mixed.append(torch.from_numpy(attention) @ layer.to_v(context[b])[:, part])
        expected = layer.to_out[0](torch.cat(mixed, 1))
        torch.testing.assert_close(found[b], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("latent", [(8, 8), (4, 12)])
def test_in_a_unet_only_the_branch_with_text_is_modulated(unet, latent):
    context = draw(3, TOKENS, WIDTH)
    plain = run(unet, context, latent)
    masks = torch.zeros(1, 1, *latent)
    masks[..., latent[1] // 2 :] = 1
    with attached(unet, Modulation(masks, [[-1, 0, 0, -1, -1]], [[1.0]]).at(1.0)):
        bent = run(unet, context, latent)
    torch.testing.assert_close(bent[1:], plain[1:], atol=1e-5, rtol=1e-4)
    assert (bent[0] - plain[0]).abs().max() > 1e-4
    with attached(unet, Modulation(torch.ones(1, 1, *latent), [[-1, 0, 0, -1, -1]], [[0.0]]).at(1.0)):
        torch.testing.assert_close(run(unet, context, latent), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("latent", "grid"), [((8, 8), (2, 2)), ((8, 12), (4, 6))])
def test_recorded_attention_is_the_mean_over_heads_layers_and_steps(unet, latent, grid):
    context = draw(6, TOKENS, WIDTH)
    seen = []

    def keep(module, positional, named, output):
        hidden = positional[0]
        if hidden.shape[1] == grid[0] * grid[1]:
            query, key = module.to_q(hidden[:2]), module.to_k(named["encoder_hidden_states"][:2])
            query, key = (t.unflatten(2, (module.heads, -1)).transpose(1, 2) for t in (query, key))
            seen.append((query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1).mean(1))

    layers = [m for name, m in unet.named_modules() if name.endswith("attn2")]
    hooks = [m.register_forward_hook(keep, with_kwargs=True) for m in layers]
    try:
        plain = [run(unet, context, latent, seed) for seed in range(2)]
    finally:
        for hook in hooks:
            hook.remove()
    recorder = Recorder(2, latent, grid)
    with attached(unet, recorder):
        watched = [run(unet, context, latent, seed) for seed in range(2)]
    assert all(torch.equal(*pair) for pair in zip(plain, watched, strict=True))
    expected = torch.stack(seen).mean(0).transpose(1, 2).unflatten(2, grid)
    assert 2 < len(seen) < 2 * len(layers)
    torch.testing.assert_close(recorder.maps_BNrc(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(recorder.maps_BNrc().sum(1), torch.ones(2, *grid))


def test_a_missing_resolution_lists_the_available_ones(unet):
    recorder = Recorder(1, (8, 8), (8, 8))
    with attached(unet, recorder):
        run(unet, draw(1, TOKENS, WIDTH))
    with pytest.raises(ValueError, match="generator.attention_resolution: .* 8x8 .*it has: 4x4, 2x2"):
        recorder.maps_BNrc()


def test_processors_are_restored_even_after_an_error(unet):
    before = unet.attn_processors
    with pytest.raises(RuntimeError, match="on purpose"), attached(unet, Recorder(1, (8, 8), (4, 4))):
        during = unet.attn_processors
        raise RuntimeError("on purpose")
    assert {n for n in before if before[n] is not during[n]} == {n for n in before if "attn2" in n} != set()
    after = unet.attn_processors
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)


def test_a_layers_grid_is_the_latents_halved():
    assert [layer_grid(q, (6, 4)) for q in (24, 6)] == [(6, 4), (3, 2)]
    assert layer_grid(64 * 48 // 64, (64, 48)) == (8, 6)
    for queries in (5, 12, 1):
        with pytest.raises(ValueError, match="latent: a layer of"):
            layer_grid(queries, (6, 4))
