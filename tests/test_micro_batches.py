"""Micro-batches inside a rank's share: the losses and the gradient of the whole, whatever the gradient path."""

import pytest
import torch

from regionedit.data.loader import ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.training import check_step
from regionedit.training.micro_batches import SHOWN, local_gradient
from tests.training_runs import batch_for

CLOSE = 1e-6


PATHS = [
    ["--step.gradient=composite", "--step.proposal_mask=predicted_hard"],
    ["--step.gradient=composite", "--step.proposal_mask=random_hard", "--loss.alpha=0"],
    ["--step.gradient=latent", "--step.proposal_mask=predicted_hard", "--memory.chunk=1"],
    ["--step.gradient=full", "--step.proposal_mask=predicted"],
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[0] + path[1])
def test_micro_batches_give_the_losses_and_the_gradient_of_the_whole_batch(tiny_train, module_of, path):
    module = module_of(tiny_train(*path))
    batch, weights = batch_for(module.config), module.config.loss
    loss, terms = module.loss(module.step(batch, 0), weights)
    loss.backward()
    for size in (0, 1, 3):
        found = local_gradient(module, batch, weights, size)
        assert len(found.parts) == {0: 1, 1: 4, 3: 2}[size]
        assert abs(found.loss - loss) < CLOSE and not found.loss.requires_grad
        for name, value in found.terms.items():
            assert abs(value - terms[name].mean()) < CLOSE, name
        for parameter, gradient in zip(module.trained, found.gradients, strict=True):
            largest = parameter.grad.abs().max()
            assert (gradient - parameter.grad).abs().max() < min(CLOSE, 1e-4 * largest)


def test_a_step_keeps_all_probabilities_and_the_first_pictures(tiny_train, module_of):
    module = module_of(tiny_train("--data.global_batch=12"))
    batch = batch_for(module.config)
    with torch.no_grad():
        step = module.step(batch, 0)
    found = local_gradient(module, batch, module.config.loss, 5)
    torch.testing.assert_close(found.probability_BN, step.outputs.probability_BN)
    for name, picture_BCHW in step.pictures.items():
        assert len(found.pictures[name]) == SHOWN
        assert (found.pictures[name] - picture_BCHW[:SHOWN]).abs().max() <= 1 / 255, name


def test_the_attached_loss_gives_each_parameter_its_gradient(tiny_train, module_of):
    module = module_of(tiny_train())
    found = local_gradient(module, batch_for(module.config), module.config.loss, 0)
    loss = found.attached(module.trained)
    assert loss == found.loss
    (2 * loss).backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(module.trained, found.gradients, strict=True))


def test_a_network_sees_no_more_samples_at_a_time_than_a_micro_batch(tiny_train, module_of, monkeypatch):
    module = module_of(tiny_train("--data.micro_batch=2"))
    seen, encode = [], module.frozen.clip.encode_image
    monkeypatch.setattr(module.frozen.clip, "encode_image", lambda images: seen.append(len(images)) or encode(images))
    local_gradient(module, batch_for(module.config), module.config.loss, module.config.data.micro_batch)
    assert set(seen) == {2}
    manifest = Manifest.open(module.config.data.train)
    loader = ValidationLoader(manifest, module.config.data)
    assert [len(batch.keys) for batch in loader] == [2] * 6


def test_a_negative_micro_batch_is_refused(tiny_train):
    with pytest.raises(ValueError, match="data.micro_batch: -1"):
        check_step(tiny_train("--data.micro_batch=-1"))
