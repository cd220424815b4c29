"""The region predictor: equations by hand, every addition by its name, gradients, masks, and files."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import erf

from regionedit.config import PredictorConfig
from regionedit.region_predictor import LOGIT_LIMIT, RegionPredictor

B, M, D, GRID = 3, 5, 16, 3
N = GRID * GRID


def features(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return (
        torch.randn(B, N, D, generator=draw, dtype=dtype),
        torch.randn(B, M, D, generator=draw, dtype=dtype),
        torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]),
    )


def make(**arguments):
    torch.manual_seed(1)
    return RegionPredictor(dim=D, grid=GRID, **arguments)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def gelu(x):
    return x * 0.5 * (1 + erf(x / 2**0.5))


def attention_by_hand(weights, name, x, context, heads):
    query, key, value = (weights[f"{name}.{part}.weight"] for part in ("query", "key", "value"))
    out = []
    for rows in np.split(np.arange(D), heads):
        q, k, v = x @ query[rows].T, context @ key[rows].T, context @ value[rows].T
        out.append(softmax(q @ k.T / np.sqrt(D / heads)) @ v)
    return np.concatenate(out, -1)


def by_hand(predictor, patches, instruction, mask, heads, residual, norm, positions, blocks=1):
    """Equations 1-3 with numpy, a sample at a time, on the real tokens only."""
    weights = {name: tensor.detach().double().numpy() for name, tensor in predictor.state_dict().items()}
    normalise = layer_norm if norm else lambda x: x
    results = []
    for b in range(B):
        x = normalise(patches[b].double().numpy())
        if positions:
            x = x + weights["position_ND"]
        tokens = normalise(instruction[b][mask[b]].double().numpy())
        for block in range(blocks):
            first = normalise(x) if block else x
            fused = attention_by_hand(weights, f"blocks.{block}.cross_attention", first, tokens, heads)
            fused = fused + (x if residual else 0)
            y = normalise(fused)
            refined = attention_by_hand(weights, f"blocks.{block}.self_attention", y, y, heads)
            refined = refined + (fused if residual else 0)
            x = refined
        hidden = gelu(normalise(refined) @ weights["mlp.0.weight"].T + weights["mlp.0.bias"])
        logits = (hidden @ weights["mlp.2.weight"].T + weights["mlp.2.bias"])[:, 0]
        results.append((fused, refined, logits, 1 / (1 + np.exp(-logits))))
    return [np.stack(parts) for parts in zip(*results, strict=True)]


def check_by_hand(predictor, **settings):
    patches, instruction, mask = features()
    prediction = predictor(patches, instruction, mask)
    seen = (prediction.fused_BND, prediction.refined_BND, prediction.logits_BN, prediction.probability_BN)
    for got, expected in zip(seen, by_hand(predictor, patches, instruction, mask, **settings), strict=True):
        assert np.allclose(got.detach().numpy(), expected, atol=1e-5)


def test_the_paper_variant_is_equations_1_to_3():
    predictor = make(variant="paper")
    check_by_hand(predictor, heads=1, residual=False, norm=False, positions=False)
    assert set(predictor.state_dict()) == {
        f"blocks.0.{block}_attention.{part}.weight" for block in ("cross", "self") for part in ("query", "key", "value")
    } | {f"{name}.{part}" for name in ("mlp.0", "mlp.2", "semantic") for part in ("weight", "bias")}


def test_the_paper_variant_ignores_what_does_not_apply():
    plain = make(variant="paper")
    decorated = make(variant="paper", heads=5, residual=True, norm=True, positions=True, blocks=3)
    patches, instruction, mask = features()
    assert torch.equal(plain(patches, instruction, mask).logits_BN, decorated(patches, instruction, mask).logits_BN)


@pytest.mark.parametrize(
    "heads, residual, norm, positions, blocks",
    [*itertools.product([1, 4], *[[False, True]] * 3, [1]), (4, True, True, True, 3)],
)
def test_every_addition_by_hand(heads, residual, norm, positions, blocks):
    settings = dict(heads=heads, residual=residual, norm=norm, positions=positions, blocks=blocks)
    check_by_hand(make(**settings), **settings)


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_every_parameter_gets_a_gradient(variant):
    predictor = make(variant=variant)
    patches, instruction, mask = features()
    prediction = predictor(patches, instruction, mask)
    prediction.probability_BN.sum().backward(retain_graph=True)
    without = {name for name, parameter in predictor.named_parameters() if parameter.grad is None}
    assert without == {"semantic.weight", "semantic.bias"}, "the region alone trains all but f_sem"
    target = predictor.project(patches)
    (prediction.probability_BN.sum() + (predictor.project(prediction.fused_BND) * target).sum()).backward()
    for name, parameter in predictor.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("variant", ["default", "paper"])
def test_padding_and_batch_change_nothing(variant):
    """In double precision, where only a real dependence could show."""
    predictor = make(variant=variant).double()
    patches, instruction, mask = features(torch.float64)
    # What lies under the padding is undefined.
    noise = torch.where(mask[..., None], instruction, 1e3 * torch.rand_like(instruction))
    fused = predictor(patches, noise, mask).fused_BND
    for b in range(B):
        alone = predictor(patches[b : b + 1], instruction[b : b + 1, mask[b]]).fused_BND
        assert torch.allclose(fused[b : b + 1], alone, atol=1e-12)


def test_weights_from_before_there_were_blocks_are_read():
    new, old = make(), make()
    weights = {name.replace("blocks.0.", ""): tensor for name, tensor in new.state_dict().items()}
    assert {name.split(".")[0] for name in weights} >= {"cross_attention", "self_attention", "fused_norm"}
    old.load_state_dict(weights)
    patches, instruction, mask = features()
    assert torch.equal(old(patches, instruction, mask).logits_BN, new(patches, instruction, mask).logits_BN)
    holder = torch.nn.ModuleDict({"predictor": make()})  # as in a training checkpoint
    holder.load_state_dict({f"predictor.{name}": tensor for name, tensor in weights.items()})


def test_f_sem_is_the_mean_patch_mapped():
    predictor = make()
    patches = features()[0]
    expected = patches.mean(1) @ predictor.semantic.weight.T + predictor.semantic.bias
    assert torch.allclose(predictor.project(patches), expected, atol=1e-6)


@pytest.mark.parametrize("initial", [0.1, 0.5, 0.7])
def test_an_untrained_predictor_says_its_initial_probability(initial):
    probability = make(initial_probability=initial)(*features()).probability_BN
    assert (probability - initial).abs().max() < 0.1


def test_logits_are_float32_within_limits_so_that_no_probability_is_1():
    predictor = make()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        predictor.mlp[-1].bias.fill_(1e6)
        prediction = predictor(*features())
    assert prediction.logits_BN.dtype == torch.float32
    assert (prediction.logits_BN == LOGIT_LIMIT).all() and (prediction.probability_BN < 1).all()


def test_positions_stretch_to_another_square_grid():
    predictor = make()
    with torch.no_grad():
        predictor.position_ND.copy_(torch.arange(N).repeat_interleave(D).view(N, D) // GRID)  # its row
    rows = predictor._positions(36)[:, 0].view(6, 6)
    assert torch.allclose(rows, rows[:, :1].expand(6, 6), atol=1e-5)
    assert (rows[:, 0].diff() > -0.1).all() and rows[0, 0] < 0.2 and rows[-1, 0] > 1.8
    _, instruction, mask = features()
    assert predictor(torch.randn(B, 36, D), instruction, mask).logits_BN.shape == (B, 36)


def test_bad_arguments_name_the_field():
    for arguments, field in [
        ({"heads": 5}, "predictor.heads"),
        ({"variant": "papre"}, "predictor.variant"),
        ({"initial_probability": 1.0}, "predictor.initial_probability"),
    ]:
        with pytest.raises(ValueError, match=field):
            make(**arguments)
    patches, instruction, mask = features()
    with pytest.raises(ValueError, match="features 16 wide, got patches of 8"):
        make()(patches[..., :8], instruction, mask)
    with pytest.raises(ValueError, match="square grid, got 8 patches"):
        make()(patches[:, :8], instruction, mask)


def test_from_config_passes_every_field():
    config = PredictorConfig(
        variant="default", heads=2, residual=False, norm=False, positions=False, mlp_width=7, initial_probability=0.3
    )
    written = RegionPredictor.from_config(config, D, GRID)._hub_mixin_config
    assert written == {**vars(config), "dim": D, "grid": GRID}


@pytest.mark.parametrize("variant", ["default", "paper"])
@pytest.mark.parametrize("how", ["save_pretrained", "export"])
def test_files_bring_the_same_predictor_back(tmp_path, variant, how, capfd):
    predictor = make(variant=variant, mlp_width=8)
    getattr(predictor, how)(tmp_path / "region")
    names = sorted(file.name for file in (tmp_path / "region").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    again = RegionPredictor.from_pretrained(tmp_path / "region")
    assert load_file(tmp_path / "region" / "model.safetensors").keys() == dict(predictor.named_parameters()).keys()
    assert not again.training and (again.dim, again.grid) == (D, GRID)
    assert torch.equal(predictor(*features()).logits_BN, again(*features()).logits_BN)
    assert capfd.readouterr() == ("", "")


def test_an_export_replaces_the_one_before_and_its_card_says_what_matters(tmp_path):
    make().export(tmp_path)
    predictor = make(initial_probability=0.2)
    predictor.export(tmp_path, trained_with=["CLIP x@1", "T5 y@2"], data="1,000 pictures", measured="IoU .6 (n = 10)")
    assert torch.equal(
        RegionPredictor.from_pretrained(str(tmp_path))(*features()).logits_BN, predictor(*features()).logits_BN
    )
    card = (tmp_path / "README.md").read_text()
    for part in ("license: apache-2.0", "- CLIP x@1\n- T5 y@2\n", "1,000 pictures", "IoU .6 (n = 10)"):
        assert part in card
    for heading in ("## Data", "## Limits", "## Fairness", "## Licences"):
        assert heading in card
    assert json.loads((tmp_path / "config.json").read_text())["initial_probability"] == 0.2


def test_damaged_files_do_not_load(tmp_path):
    make().export(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file({name: tensor for name, tensor in weights.items() if name != "mlp.0.bias"}, file)
    with pytest.raises(RuntimeError, match="mlp.0.bias"):
        RegionPredictor.from_pretrained(tmp_path)
