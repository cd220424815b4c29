"""Memory settings: the same gradient with each of them and with all, and fewer bytes kept for the backward pass."""

import pytest
import torch
from torch import nn

from regionedit import losses
from regionedit.config import LossConfig
from regionedit.data.datamodule import PairsDataModule
from regionedit.encoders import ImageFeatures
from regionedit.frozen_conv import FrozenConv2d, freeze_convolutions
from regionedit.records import StepOutputs
from regionedit.training import NotFinite, RegionTraining, train
from regionedit.training.result import Blend, encode_result

PLAIN = ("--memory.frozen_convolutions=false",)
PATHS = {
    "composite": (),
    "latent": ("--step.gradient=latent",),
    "last_step": ("--step.gradient=last_step", "--step.proposal_mask=predicted"),
    "full": ("--step.gradient=full", "--step.proposal_mask=predicted"),
}
SETTINGS = {
    "chunk of 1": (*PLAIN, "--memory.chunk=1"),
    "chunk of 3": (*PLAIN, "--memory.chunk=3"),
    "frozen convolutions": (),
    "checkpointing": (*PLAIN, "--memory.checkpoint=[unet,autoencoder,clip]"),
    "all": ("--memory.chunk=3", "--memory.checkpoint=[unet,autoencoder,clip]"),
}
SAME = 1e-4
"""Largest difference of two gradients, as a share of the largest gradient: float32's rounding through 30 layers."""


def gradient(config) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Loss, gradient of every trained weight in one vector, bytes kept for the backward pass."""
    torch.manual_seed(0)
    module = RegionTraining(config)
    data = PairsDataModule(config.data, config.seed, config.max_steps)
    batch = next(iter(data.train_dataloader()))
    kept, frozen = {}, [*module.frozen.clip.parameters(), *module.frozen.instruction_encoder.parameters()]
    frozen += [p for network in module.frozen.generator.modules.values() for p in network.parameters()]
    weights = {p.untyped_storage().data_ptr() for p in (*frozen, *module.predictor.parameters())}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = module.loss(module.step(batch, 0), config.loss)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in module.predictor.parameters()]), sum(kept.values())


def assert_same(config, expected: tuple) -> int:
    """Returns the bytes that are kept."""
    loss, found, kept = gradient(config)
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-6)
    assert (found - expected[1]).abs().max() <= SAME * expected[1].abs().max()
    return kept


def test_each_setting_gives_the_same_gradient_and_keeps_fewer_bytes(tiny_train):
    """Chunks are counted in benchmarks/memory.py: what they keep is freed before the step ends."""
    expected = gradient(tiny_train(*PATHS["full"], *PLAIN))
    for name, changes in SETTINGS.items():
        kept = assert_same(tiny_train(*PATHS["full"], *changes), expected)
        assert kept < 0.9 * expected[2] or "chunk" in name


@pytest.mark.parametrize("path", ["composite", "latent", "last_step"])
def test_all_settings_together_give_the_same_gradient(tiny_train, path):
    expected = gradient(tiny_train(*PATHS[path], *PLAIN))
    assert_same(tiny_train(*PATHS[path], *SETTINGS["all"]), expected)
    if path == "last_step":  # weights of 8 bits' precision give another gradient, which must stay close
        _, found, _ = gradient(tiny_train(*PATHS[path], "--generator.dtype=bfloat16", "--encoders.dtype=bfloat16"))
        assert found.dtype == torch.float32
        assert torch.cosine_similarity(found, expected[1], dim=0) > 0.98


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


class TwoNumbers:
    """Stands in for CLIP: a picture's features are its first two numbers, and each picture has two patches."""

    def encode_image(self, images_BCHW):
        global_BD = images_BCHW.flatten(1)[:, :2]
        return ImageFeatures(global_BD, torch.stack([global_BD, global_BD.flip(1)], 1))


def test_chunks_need_no_gradient_and_see_every_row():
    """Five rows in chunks of two; the surrogate loss is 0 and has the gradient of the losses by hand."""
    rows_B, generator = torch.randn(5, 3), torch.Generator().manual_seed(0)
    source = TwoNumbers().encode_image(torch.randn(5, 2, generator=generator))
    texts_BD = torch.randn(2, 5, 2, generator=generator)
    known = StepOutputs(*torch.zeros(3, 5, 2), source.global_BD, source.patches_BND, *texts_BD)
    config = LossConfig(beta=2.0, clip_guidance=0.5, clip_direction=0, clip_structure=0)
    found = encode_result(Blend(rows_B, lambda part: part * 2), TwoNumbers(), known, config, 2)
    assert torch.equal(found.picture_BCHW, rows_B * 2) and torch.equal(found.features.global_BD, 2 * rows_B[:, :2])
    assert found.surrogate_loss_B is None
    rows_B.requires_grad_()
    chunked = encode_result(Blend(rows_B, lambda part: part * 2), TwoNumbers(), known, config, 2).surrogate_loss_B
    assert torch.equal(chunked, torch.zeros(5))
    (found_B,) = torch.autograd.grad(chunked.sum(), rows_B)
    by_hand_B = 2.0 * 0.5 * (1 - torch.cosine_similarity(2 * rows_B[:, :2], texts_BD[1]))
    torch.testing.assert_close(found_B, torch.autograd.grad(by_hand_B.sum(), rows_B)[0])


def test_a_broken_gradient_inside_a_chunk_stops_the_run(tiny_train, monkeypatch):
    original = losses.TERMS["clip_guidance"]
    monkeypatch.setitem(losses.TERMS, "clip_guidance", lambda outputs: original(outputs) * float("nan"))
    with pytest.raises(NotFinite, match="clip_guidance"):
        train(tiny_train("--memory.chunk=2"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_networks_give_the_same_gradient(tiny_train):
    _, expected, _ = gradient(tiny_train(*PATHS["full"]))
    _, found, _ = gradient(tiny_train(*PATHS["full"], "--generator.compile=true", "--encoders.compile=true"))
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
