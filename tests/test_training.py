"""Training on tiny random models: every path carries gradient, frozen stays frozen, stopping loses nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from regionedit import losses
from regionedit.command_line import load_config, save_config
from regionedit.config import LossConfig, TrainConfig
from regionedit.data.datamodule import PairsDataModule
from regionedit.evaluation.charts import draw_curves
from regionedit.region_predictor import RegionPredictor
from regionedit.training import NotFinite, RegionTraining, Stopped, check_step, train
from regionedit.training.callbacks import SaveAndStop
from regionedit.training.schedule import learning_rate, loss_weights
from regionedit.training.scores import RegionScores, pointing
from tests.pairs import SIZE, write_pairs


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("validation"), shards=1, truth=True)


@pytest.fixture
def make(tiny_train):
    return tiny_train


def logged(config: TrainConfig, name: str = "train/loss") -> dict[int, float]:
    rows = [line.split(",") for line in (Path(config.out) / "metrics.csv").read_text().splitlines()[1:]]
    return {int(step): float(value) for step, key, value in rows if key == name}


def batch_for(config: TrainConfig):
    data = PairsDataModule(config.data, config.seed, config.max_steps)
    return next(iter(data.train_dataloader()))


# ---------------------------------------------------------------- every path from loss to predictor


@pytest.mark.parametrize("gradient", ["composite", "latent", "last_step", "full"])
@pytest.mark.parametrize("estimator", ["null", "straight_through", "binary_concrete"])
def test_every_weight_gets_a_finite_gradient_on_every_path(make, gradient, estimator):
    mask = "predicted" if gradient in ("last_step", "full") else "predicted_hard"
    config = make(f"--step.gradient={gradient}", f"--step.estimator={estimator}", f"--step.proposal_mask={mask}")
    module = RegionTraining(config)
    loss, _ = losses.total(module.step(batch_for(config), 0)[0], config.loss)
    loss.backward()
    for name, weight in module.predictor.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().sum() > 0, name
    for network in module.frozen[:2]:
        assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is None for network in module.frozen[2].modules.values() for p in network.parameters())


@pytest.mark.parametrize("gradient", ["composite", "latent", "last_step", "full"])
@pytest.mark.parametrize("term", ["clip_guidance", "clip_direction", "clip_structure"])
def test_each_clip_loss_alone_reaches_the_region(make, gradient, term):
    """No other term may hide a cut path: what CLIP sees must pull at P."""
    others = {"clip_guidance", "clip_direction", "clip_structure"} - {term}
    config = make(
        f"--step.gradient={gradient}", "--step.proposal_mask=predicted", "--loss.alpha=0", "--loss.area=0",
        "--loss.entropy=0", *(f"--loss.{other}=0" for other in others),
    )  # fmt: skip
    module = RegionTraining(config)
    loss, terms = losses.total(module.step(batch_for(config), 0)[0], config.loss)
    loss.backward()
    assert list(terms) == [term]
    gradient = module.predictor.cross_attention.query.weight.grad
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("mask", ["predicted", "predicted_hard", "random_hard", "everything", "half"])
def test_what_conditions_the_proposal(make, mask):
    config = make(f"--step.proposal_mask={mask}", "--step.explore=0.5")
    module, batch = RegionTraining(config), batch_for(config)
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


def test_an_empty_region_shows_clip_the_source_itself(make):
    config = make()
    module = RegionTraining(config)
    with torch.no_grad():
        module.predictor.mlp[-1].weight.zero_()
        module.predictor.mlp[-1].bias.fill_(-1e9)
    module._composing_mask = lambda probability_BN, keys, epoch: torch.zeros_like(probability_BN)
    outputs, pictures = module.step(batch_for(config), 0)
    assert torch.equal(pictures["composed"], pictures["source"])
    assert torch.equal(outputs.result_BD, outputs.source_BD)
    _, terms = losses.total(outputs, config.loss)
    assert terms["clip_direction"].abs().max() == 0 and terms["clip_structure"].abs().max() == 0


def test_noise_belongs_to_the_sample_not_to_its_place(make):
    config = make("--step.proposal_mask=random_hard")
    module, batch = RegionTraining(config), batch_for(config)
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
        (a, pictures), (b, moved_pictures) = module.step(batch, 0), module.step(moved, 0)
        later = module.step(batch, 1)[1]
    torch.testing.assert_close(b.probability_BN, a.probability_BN[order])
    assert (moved_pictures["proposal"] - pictures["proposal"][order]).abs().max() <= 1 / 255
    assert (later["proposal"] - pictures["proposal"]).abs().max() > 1 / 255


# ---------------------------------------------------------------- what is refused before anything is loaded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--step.gradient=full"], "step.proposal_mask"),
        (["--step.gradient=latent", "--data.proposals=x"], "data.proposals"),
        (["--generator.name=nothing", "--step.gradient=full"], "generator.name"),
        (["--encoders.clip=local-dir:/nowhere"], "encoders.clip"),
        (["--data.train=/nowhere"], "data.train"),
        (["--data.global_batch=1000"], "data.global_batch"),
        (["--initial_region=/nowhere"], "initial_region"),
        (["--trainer.max_epochs=3"], "trainer.max_epochs"),
        (["--trainer.colour=red"], "trainer"),
        (["--log.wandb_project=x"], "log.wandb_project"),
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


def test_a_warm_start_asks_no_generator_and_then_it_does(make, monkeypatch):
    asked = []
    original = RegionTraining._propose
    monkeypatch.setattr(
        RegionTraining, "_propose", lambda self, *a: asked.append(self.global_step) or original(self, *a)
    )
    config = make("--step.warm_steps=2", "--loss.region_contrast=1", "--max_steps=4")
    train(config)
    assert asked == [2, 3]
    assert sorted(logged(config, "train/region_contrast")) == [1, 2]
    assert sorted(logged(config, "train/clip_direction")) == [3, 4]
    with pytest.raises(ValueError, match="loss.region_contrast"):
        check_step(make("--step.warm_steps=2"))


# ---------------------------------------------------------------- a run


class Watch(Callback):
    """Records, step by step, what the assertions need."""

    def __init__(self):
        self.modes, self.module = set(), None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.module = module
        networks = [*module.frozen[:2], *module.frozen[2].modules.values()]
        self.modes |= {m.training for network in networks for m in network.modules()}


def frozen_weights(module: RegionTraining) -> list[torch.Tensor]:
    clip, instruction_encoder, generator = module.frozen
    networks = [clip, instruction_encoder, *generator.modules.values()]
    return [t for n in networks for t in (*n.parameters(), *n.buffers())]


def test_a_run_leaves_everything_behind_and_frozen_networks_untouched(make, validation):
    config = make(f"--data.validation={validation}", "--log.validate_every_steps=1000", "--log.pictures_every_steps=2")
    before = [t.clone() for t in frozen_weights(RegionTraining(config))]
    watch = Watch()
    exported = train(config, [watch])
    assert watch.modes == {False}
    assert all(torch.equal(a, b) for a, b in zip(before, frozen_weights(watch.module), strict=True))

    out = Path(config.out)
    assert load_config(TrainConfig, out / "config.yaml") == config
    names = {line.split(",")[1] for line in (out / "metrics.csv").read_text().splitlines()[1:]}
    assert {
        "train/loss", "train/clip_direction", "train/region_area", "train/region_above_threshold", "train/lr",
        "train/images_per_second", "train/data_wait", "validation/loss", "validation/region_area",
        "validation/instruction_swap_iou", "validation/iou", "validation/iou/local", "validation/iou/replace",
        "validation/iou_best", "validation/pointing",
    } <= names  # fmt: skip
    assert set(logged(config, "validation/loss")) == {2}
    assert not any("iou_at_" in name for name in names)
    assert draw_curves(str(out / "metrics.csv")).startswith("data:image/png")
    assert list((out / "tensorboard").glob("events*"))
    sheet = Image.open(out / "pictures" / "step_000002.png")
    assert sheet.width > 4 * 64
    assert (out / "checkpoints" / "best.ckpt").exists()

    predictor = RegionPredictor.from_pretrained(exported)
    trained = watch.module.predictor.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in predictor.state_dict().items())
    assert "local-dir:" in (exported / "README.md").read_text()
    assert json.loads((exported / "config.json").read_text())["grid"] == 4


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(make):
    config = make()
    train(config)
    saved = torch.load(Path(config.out) / "checkpoints" / "last.ckpt", weights_only=True)
    predictor = RegionPredictor.from_config(config.predictor, 32, 4).state_dict()
    assert set(saved["state_dict"]) == {f"predictor.{name}" for name in predictor}
    assert saved["global_step"] == 2
    assert saved["config"]["seed"] == 0
    size = (Path(config.out) / "checkpoints" / "last.ckpt").stat().st_size
    assert size < 4 * sum(v.numel() * v.element_size() for v in predictor.values()) + 100_000


def test_weight_zero_for_f_sem_leaves_it_untrained(make):
    """DDP without a search for unused parameters would otherwise wait for ever."""
    module = RegionTraining(make("--loss.alpha=0"))
    assert not any(p.requires_grad for p in module.predictor.semantic.parameters())


class StopAt(Callback):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM):
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_a_stopped_run_goes_on_as_if_never_stopped(make, tmp_path, stop_at):
    """12 samples in batches of 4: step 3 ends an epoch, so the stops lie before, at and after its end."""
    whole, parts = make("--max_steps=5"), make("--max_steps=5", f"--out={tmp_path / 'parts'}")
    train(whole)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        train(parts, [StopAt(stop_at)])
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not (Path(parts.out) / "region_predictor").exists()
    train(parts)
    assert logged(parts) == logged(whole)
    first, second = (RegionPredictor.from_pretrained(Path(c.out) / "region_predictor") for c in (whole, parts))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_finished_run_can_be_repeated_and_extended(make):
    config = make()
    train(config)
    first = logged(config)
    train(config)
    assert logged(config) == first
    train(dataclasses.replace(config, max_steps=4))
    assert sorted(logged(config)) == [1, 2, 3, 4]


def test_a_run_too_short_to_log_anything_is_exported(make):
    config = make("--max_steps=1", "--log.every_steps=50")
    train(config)
    assert not (Path(config.out) / "metrics.csv").exists()
    assert "Not recorded." in (Path(config.out) / "region_predictor" / "README.md").read_text()


def test_resuming_with_another_configuration_is_refused(make):
    train(make())
    with pytest.raises(ValueError, match="loss.area: is 0.7, but the run .* 0.5"):
        train(make("--loss.area=0.7"))
    train(make("--max_steps=3", "--log.every_steps=2"))


def test_rows_after_the_checkpoint_of_a_killed_run_are_dropped(make):
    config = make("--max_steps=4", "--log.checkpoint_every_steps=2")

    class Crash(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            if trainer.global_step == 3:
                raise KeyError("killed")

    with pytest.raises(KeyError):
        train(config, [Crash()])
    assert sorted(logged(config)) == [1, 2, 3]
    train(config)
    steps = [int(line.split(",")[0]) for line in (Path(config.out) / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(steps) and sorted(logged(config)) == [1, 2, 3, 4]


def test_nan_stops_with_the_sample_keys(make, monkeypatch):
    config = make()
    original, batch = losses.TERMS["clip_guidance"], batch_for(config)
    spoilt = batch.keys[2]

    def broken(outputs):
        value_B = original(outputs)
        return torch.where(torch.tensor([key == spoilt for key in batch.keys]), torch.nan, value_B)

    monkeypatch.setitem(losses.TERMS, "clip_guidance", broken)
    with pytest.raises(NotFinite) as error:
        train(config)
    assert spoilt in str(error.value) and "clip_guidance" in str(error.value)
    assert not any(key in str(error.value) for key in batch.keys if key != spoilt)
    assert not (Path(config.out) / "checkpoints" / "last.ckpt").exists()


def test_a_time_limit_ends_the_schedule_and_the_run(make, monkeypatch):
    """With a clock that gives every step a quarter of a second."""
    monkeypatch.setattr(RegionTraining, "seconds", lambda self: 0.25 * self.global_step)
    config = make("--max_steps=100000", "--max_seconds=1.5", "--optimizer.warmup_steps=1")
    train(config)
    rates = logged(config, "train/lr")
    assert sorted(rates) == [1, 2, 3, 4, 5, 6]
    settings = config.optimizer
    assert all(np.isclose(rates[step], learning_rate(settings, step, (step - 1) / 6)) for step in rates)
    train(config)  # finished: exports again, trains no more
    assert logged(config, "train/lr") == rates


def test_learning_rate_warms_up_and_decays():
    settings = TrainConfig().optimizer
    assert learning_rate(settings, 0, 0.0) == settings.lr / settings.warmup_steps
    assert learning_rate(settings, 1000, 0.0) == settings.lr
    assert np.isclose(learning_rate(settings, 1000, 1.0), settings.lr * settings.final_lr)
    rates = [learning_rate(settings, 1000, i / 10) for i in range(11)]
    assert rates == sorted(rates, reverse=True)


def test_a_profile_tells_where_the_time_of_the_steps_went(make, capsys):
    train(make("--profile=true", "--max_steps=4"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    start = lines.index(["stage", "ms", "a", "step", "share"])
    assert lines[start - 1] == ["3", "steps", "of", "4", "pictures"], "the first step only warms up"
    table = {name: (float(ms), float(share.rstrip("%"))) for name, ms, share in lines[start + 1 : start + 8]}
    assert set(table) == {"encode", "predict", "generate", "judge", "backward", "data", "rest"}
    assert all(ms > 0 for name, (ms, _) in table.items() if name != "data")
    assert abs(sum(share for _, share in table.values()) - 100) < 1


# ---------------------------------------------------------------- the command, and more than one process


def command(config: TrainConfig, tmp_path: Path, *more: str) -> subprocess.Popen:
    save_config(config, tmp_path / "given.yaml")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, "train.py", "--config", str(tmp_path / "given.yaml"), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_two_processes_see_the_same_losses_as_one(make, validation, tmp_path):
    changes = ["--max_steps=3", f"--data.validation={validation}"]
    one = make(*changes)
    two = make(*changes, f"--out={tmp_path / 'two'}", "--trainer.devices=2", "--trainer.strategy=ddp")
    train(one)
    process = command(two, tmp_path)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    for name in ("train/loss", "train/clip_direction", "train/region_area", "train/gradient_norm"):
        alone, together = logged(one, name), logged(two, name)
        assert sorted(alone) == sorted(together) == [1, 2, 3]
        precision = 2e-4 if name == "train/gradient_norm" else 1e-5
        np.testing.assert_allclose(list(together.values()), list(alone.values()), rtol=precision, atol=1e-6)
    for name in ("validation/loss", "validation/iou", "validation/pointing"):
        np.testing.assert_allclose(logged(two, name)[3], logged(one, name)[3], rtol=1e-3)


def test_the_command_saves_on_sigterm(make, tmp_path):
    config = make("--max_steps=100000")
    process = command(config, tmp_path)
    metrics = Path(config.out) / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 20):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "run the same command to go on" in errors and "Traceback" not in errors
    assert (Path(config.out) / "checkpoints" / "last.ckpt").exists()


# ---------------------------------------------------------------- scores


def test_pointing_by_hand():
    objects = torch.zeros(3, 3, 4, 4, dtype=torch.bool)
    objects[:, 0, :2, :2] = True
    objects[:, 1, 2:, 2:] = True
    objects[2, 0] = False  # names nothing
    probability_BN = torch.tensor([[0.9, 0.0, 0.0, 0.1], [0.2, 0.0, 0.0, 0.3], [0.9, 0.0, 0.0, 0.1]])
    found = pointing(probability_BN, tuple(objects), grid=2)
    assert found[:2].tolist() == [1, 0] and found[2].isnan()
    assert pointing(probability_BN[:1], (objects[0, :1],), 2).isnan()


def test_region_scores_by_hand():
    class Batch:
        truth_mask_B1HW = torch.zeros(2, 1, 4, 4)
        object_masks = None
        operations = ("replace", "add")

    Batch.truth_mask_B1HW[:, :, :2, :2] = 1
    scores = RegionScores(0.5)
    probability_BN = torch.tensor([[0.9, 0.7, 0.0, 0.0], [0.4, 0.0, 0.0, 0.0]])
    scores.add_regions(probability_BN, probability_BN, Batch, grid=2)
    found = scores.compute()
    assert found["iou"] == 0.25 and found["iou/replace"] == found["iou/local"] == 0.5 and found["iou/add"] == 0
    assert found["iou_best"] == 0.75 and found["iou_best/replace"] == 1.0
    assert found["instruction_swap_iou"] == 1 and found["region_above_threshold"] == 0.25
    assert scores.compute() == {}


def test_a_signal_is_answered_after_the_step(make):
    config = make("--max_steps=5")
    with pytest.raises(Stopped) as stopped:
        train(config, [StopAt(1, signal.SIGINT)])
    assert stopped.value.code == 130
    assert isinstance(SaveAndStop(Path(), 1), Callback)


def test_entropy_weight_falls_to_zero_and_nothing_else_changes():
    settings = LossConfig(entropy=-1.0, entropy_until=0.5, area=0.3)
    assert [loss_weights(settings, share).entropy for share in (0.0, 0.25, 0.5, 0.9)] == [-1.0, -0.5, 0.0, 0.0]
    assert loss_weights(settings, 0.9).area == 0.3
    assert loss_weights(LossConfig(entropy=-1.0), 0.9).entropy == -1.0
