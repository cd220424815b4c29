"""Memory savers: the same gradient with each of them and with all, and fewer bytes kept for the way back."""

import pytest
import torch
from torch import nn

from regionedit import losses
from regionedit.data.datamodule import PairsDataModule
from regionedit.encoders import ImageFeatures
from regionedit.frozen_conv import FrozenConv2d, freeze_convolutions
from regionedit.training import NotFinite, RegionTraining, check_step, train
from regionedit.training.judging import judge

PLAIN = ("--savers.frozen_convolutions=false",)
PATHS = {
    "composite": (),
    "latent": ("--step.gradient=latent",),
    "last_step": ("--step.gradient=last_step", "--step.proposal_mask=predicted"),
    "full": ("--step.gradient=full", "--step.proposal_mask=predicted"),
}
SAVERS = {
    "chunk of 1": (*PLAIN, "--savers.chunk=1"),
    "chunk of 3": (*PLAIN, "--savers.chunk=3"),
    "frozen convolutions": (),
    "checkpointing": (*PLAIN, "--savers.checkpoint=[unet,autoencoder,clip]"),
    "all": ("--savers.chunk=3", "--savers.checkpoint=[unet,autoencoder,clip]"),
}
SAME = 1e-4
"""Largest difference of two gradients, as a share of the largest gradient: float32's rounding through 30 layers."""


def gradient(config) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Loss, gradient of every trained weight in one vector, bytes kept for the way back."""
    torch.manual_seed(0)
    module = RegionTraining(config)
    data = PairsDataModule(config.data, config.seed, config.max_steps)
    batch = next(iter(data.train_dataloader()))
    kept, frozen = {}, [*module.frozen[0].parameters(), *module.frozen[1].parameters()]
    frozen += [p for network in module.frozen[2].modules.values() for p in network.parameters()]
    weights = {p.untyped_storage().data_ptr() for p in (*frozen, *module.predictor.parameters())}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = losses.total(module.step(batch, 0)[0], config.loss)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in module.predictor.parameters()]), sum(kept.values())


def assert_same(config, expected: tuple) -> None:
    loss, found, _ = gradient(config)
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-6)
    assert (found - expected[1]).abs().max() <= SAME * expected[1].abs().max()


def test_each_saver_gives_the_same_gradient(tiny_train):
    expected = gradient(tiny_train(*PATHS["full"], *PLAIN))
    for changes in SAVERS.values():
        assert_same(tiny_train(*PATHS["full"], *changes), expected)


@pytest.mark.parametrize("path", ["composite", "latent", "last_step"])
def test_all_savers_together_give_the_same_gradient(tiny_train, path):
    assert_same(tiny_train(*PATHS[path], *SAVERS["all"]), gradient(tiny_train(*PATHS[path], *PLAIN)))


@pytest.mark.parametrize("saver", ["frozen convolutions", "checkpointing"])
def test_fewer_bytes_are_kept(tiny_train, saver):
    """Chunks are counted in benchmarks/memory.py: what they keep is let go before the step has ended."""
    plain, saving = (gradient(tiny_train(*PATHS["full"], *changes))[2] for changes in (PLAIN, SAVERS[saver]))
    assert saving < 0.9 * plain


def test_frozen_weights_in_bfloat16_point_the_same_way(tiny_train):
    """Weights of 8 bits' precision give another gradient, which must stay close: cosine at least .98."""
    half = ("--generator.precision=bfloat16", "--encoders.precision=bfloat16")
    _, expected, _ = gradient(tiny_train(*PATHS["last_step"]))
    _, found, _ = gradient(tiny_train(*PATHS["last_step"], *half))
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found, expected, dim=0) > 0.98


@pytest.mark.parametrize("changes", [{}, {"stride": 2}, {"padding": 2, "dilation": 2}, {"groups": 2}, {"bias": False}])
def test_a_frozen_convolution_equals_the_plain_one_and_keeps_no_input(changes):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, **changes).requires_grad_(False)
    frozen = nn.Conv2d(4, 6, 3, **changes).requires_grad_(False)
    frozen.load_state_dict(plain.state_dict())
    assert freeze_convolutions(frozen) == 1 and isinstance(frozen, FrozenConv2d) and freeze_convolutions(frozen) == 0
    inputs = [torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        results = [frozen(inputs[0]), plain(inputs[1])]
    assert [t.shape for t in kept].count(inputs[0].shape) == 1, "the plain one alone keeps its input"
    torch.testing.assert_close(results[0], results[1])
    for result in results:
        result.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


def test_a_convolution_that_learns_keeps_its_input():
    with pytest.raises(ValueError, match="freeze it first"):
        freeze_convolutions(nn.Conv2d(1, 1, 1))


def test_chunks_need_no_gradient_and_see_every_row():
    """Five rows in chunks of two; without gradient there is nothing to pull."""
    begun = torch.randn(5, 3)

    def look(rows):
        return rows * 2, ImageFeatures(rows + 1, rows[:, None])

    found = judge(begun, look, lambda features, rows: features.global_BD.sum(1), 2)
    assert torch.equal(found.composed_BCHW, begun * 2) and torch.equal(found.features.global_BD, begun + 1)
    assert found.surrogate_loss_B is None
    weights = torch.tensor([1.0, 2, 3, 4, 5])
    pulled = judge(begun.requires_grad_(), look, lambda features, rows: weights[rows] * features.global_BD.sum(1), 2)
    assert torch.equal(pulled.surrogate_loss_B, torch.zeros(5))
    pulled.surrogate_loss_B.mean().backward()
    torch.testing.assert_close(begun.grad, weights[:, None].expand(5, 3) / 5)


def test_a_broken_gradient_inside_a_chunk_stops_the_run(tiny_train, monkeypatch):
    original = losses.TERMS["clip_guidance"]
    monkeypatch.setitem(losses.TERMS, "clip_guidance", lambda outputs: original(outputs) * float("nan"))
    with pytest.raises(NotFinite, match="clip_guidance"):
        train(tiny_train("--savers.chunk=2"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--savers.chunk=-1",), "savers.chunk"),
        (("--generator.name=instruct_pix2pix", "--savers.compile=true"), "savers.compile"),
        (("--generator.name=instruct_pix2pix", "--savers.checkpoint=[unet]"), "savers.checkpoint"),
    ],
)
def test_what_cannot_be_saved_is_refused(tiny_train, changes, message):
    with pytest.raises(ValueError, match=message):
        check_step(tiny_train(*changes))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_networks_give_the_same_gradient(tiny_train):
    _, expected, _ = gradient(tiny_train(*PATHS["full"]))
    _, found, _ = gradient(tiny_train(*PATHS["full"], "--savers.compile=true"))
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
