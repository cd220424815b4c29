"""One training step, whole and in micro-batches: every path carries gradient; what is refused before a run."""

import dataclasses

import pytest
import torch

from regionedit import losses
from regionedit.data.loader import ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.training import RegionTraining, check_step, train
from regionedit.training.micro_batches import SHOWN, local_gradient
from tests.pairs import SIZE
from tests.training_runs import batch_for, logged


@pytest.fixture
def make(tiny_train):
    return tiny_train


@pytest.mark.parametrize("gradient", ["composite", "latent", "last_step", "full"])
@pytest.mark.parametrize("estimator", ["null", "straight_through"])
def test_every_weight_gets_a_finite_gradient_on_every_path(make, module_of, gradient, estimator):
    mask = "predicted" if gradient in ("last_step", "full") else "predicted_hard"
    config = make(f"--step.gradient={gradient}", f"--step.estimator={estimator}", f"--step.proposal_mask={mask}")
    module = module_of(config)
    loss, _ = module.loss(module.step(batch_for(config), 0), config.loss)
    loss.backward()
    for name, weight in module.predictor.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().sum() > 0, name
    for network in module.frozen[:2]:
        assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is None for network in module.frozen.generator.modules.values() for p in network.parameters())


@pytest.mark.parametrize("gradient", ["composite", "latent", "last_step", "full"])
@pytest.mark.parametrize("term", ["clip_guidance", "clip_direction", "clip_structure"])
def test_each_clip_loss_alone_reaches_the_region(make, module_of, gradient, term):
    """No other term may hide a cut path: what CLIP sees must pull at P."""
    others = {"clip_guidance", "clip_direction", "clip_structure"} - {term}
    config = make(
        f"--step.gradient={gradient}", "--step.proposal_mask=predicted", "--loss.alpha=0", "--loss.area=0",
        "--loss.entropy=0", *(f"--loss.{other}=0" for other in others),
    )  # fmt: skip
    module = module_of(config)
    loss, terms = module.loss(module.step(batch_for(config), 0), config.loss)
    loss.backward()
    assert list(terms) == [term]
    gradient = module.predictor.blocks[0].cross_attention.query.weight.grad
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("mask", ["predicted", "predicted_hard", "random_hard", "everything"])
def test_what_conditions_the_proposal(make, module_of, mask):
    config = make(f"--step.proposal_mask={mask}", "--step.explore=0.5")
    module, batch = module_of(config), batch_for(config)
    probability_BN = torch.linspace(0.1, 0.9, 16).expand(4, 16).clone().requires_grad_()
    made = module._proposal_mask(batch, probability_BN, 0)
    assert made.shape == (4, 1, SIZE, SIZE) and not made.requires_grad
    hard = set(made.unique().tolist()) <= {0.0, 1.0}
    assert hard == (mask in ("predicted_hard", "random_hard", "everything"))
    if mask == "predicted_hard":  # never less than what is predicted; everything where it explores
        several = [module._proposal_mask(batch, torch.zeros(4, 16), epoch).mean((1, 2, 3)) for epoch in range(4)]
        assert set(torch.cat(several).tolist()) == {0.0, 1.0}
        assert (made[:, 0].reshape(4, 4, 8, 4, 8).amin((2, 4)).flatten(1) >= (probability_BN > 0.5).float()).all()
    again = dataclasses.replace(batch, keys=batch.keys[::-1])
    if mask == "random_hard":
        assert torch.equal(module._proposal_mask(again, probability_BN, 0), made.flip(0))
        assert not torch.equal(module._proposal_mask(batch, probability_BN, 1), made)


def test_an_empty_region_shows_clip_the_source_itself(make, module_of):
    config = make("--step.estimator=straight_through", "--step.threshold=1")  # no probability is above 1
    module = module_of(config)
    outputs, pictures, _ = module.step(batch_for(config), 0)
    assert torch.equal(pictures["composed"], pictures["source"])
    torch.testing.assert_close(outputs.result_BD, outputs.source_BD, atol=1e-6, rtol=1e-6)
    _, terms = losses.total(outputs, config.loss)
    assert terms["clip_direction"].abs().max() == 0 and terms["clip_structure"].abs().max() < 1e-10


def test_noise_belongs_to_the_sample_not_to_its_place(make, module_of):
    config = make("--step.proposal_mask=random_hard")
    module, batch = module_of(config), batch_for(config)
    order = [2, 0, 3, 1]
    moved = dataclasses.replace(
        batch,
        images_BCHW=batch.images_BCHW[order],
        **{
            name: tuple(getattr(batch, name)[i] for i in order)
            for name in ("keys", "instructions", "source_captions", "target_captions")
        },
    )
    with torch.no_grad():
        (a, pictures, _), (b, moved_pictures, _) = module.step(batch, 0), module.step(moved, 0)
        later = module.step(batch, 1)[1]
    torch.testing.assert_close(b.probability_BN, a.probability_BN[order])
    assert (moved_pictures["proposal"] - pictures["proposal"][order]).abs().max() <= 1 / 255
    assert (later["proposal"] - pictures["proposal"]).abs().max() > 1 / 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--step.gradient=full"], "step.proposal_mask"),
        (["--step.gradient=latent", "--data.proposals=x"], "data.proposals"),
        (["--log.export=best", "--data.proposals=x"], "log.export"),
        (["--generator.name=nothing", "--step.gradient=full"], "generator.name"),
        (["--encoders.clip=local-dir:/nowhere"], "encoders.clip"),
        (["--data.train=/nowhere"], "data.train"),
        (["--data.global_batch=1000"], "data.global_batch"),
        (["--initial_region=/nowhere"], "initial_region"),
        (["--trainer.max_epochs=3"], "trainer.max_epochs"),
        (["--trainer.colour=red", "--data.train=/nowhere"], "trainer: .*colour"),  # before data and models
        (["--trainer.accelerator=gpu", "--data.train=/nowhere"], "trainer: No supported gpu backend"),
        (["--trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches: .* data.micro_batch"),
        (["--trainer.precision=16-mixed"], "trainer.precision: '16-mixed'"),
        (["--log.wandb_project=x"], "log.wandb_project"),
        (["--data.micro_batch=-1"], "data.micro_batch: -1"),
        (["--memory.chunk=-1"], "memory.chunk"),
        (["--generator.name=instruct_pix2pix", "--memory.checkpoint=[unet]"], "memory.checkpoint"),
    ],
)
def test_a_configuration_that_cannot_work_names_the_field(make, changes, message):
    with pytest.raises(ValueError, match=message):
        train(make(*changes))


def test_stored_proposals_need_no_generator(make, pairs):
    config = make(f"--data.proposals={pairs / 'proposals'}", "--generator.path=/nowhere")
    check_step(config)
    train(config)
    assert len(logged(config)) == 2


def test_validation_encodes_everything_once(make, module_of, monkeypatch):
    """The pictures and what they become, the instructions, and both captions together."""
    config = make("--step.proposal_mask=predicted_hard")
    module, calls = module_of(config), []
    for network, name in ((0, "encode_image"), (0, "encode_text"), (1, "encode")):
        original = getattr(module.frozen[network], name)
        monkeypatch.setattr(
            module.frozen[network], name, lambda *a, n=name, o=original, **k: calls.append(n) or o(*a, **k)
        )
    with torch.no_grad():
        module.validation_step(batch_for(config), 0)
    assert sorted(calls) == ["encode", "encode_image", "encode_image", "encode_text"]


def test_progress_is_asked_once_a_step(make, monkeypatch):
    """It follows the clock under `max_seconds`: a second answer in the same step could differ."""
    asked, progress = [], RegionTraining.progress
    monkeypatch.setattr(RegionTraining, "progress", lambda self: asked.append(self.global_step) or progress(self))
    train(make("--max_steps=3", "--max_seconds=1000"))
    assert asked == [0, 1, 2, 3]


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
