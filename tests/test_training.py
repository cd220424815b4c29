"""Training runs on tiny random models: frozen stays frozen, stopping loses nothing, two processes equal one."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from regionedit import losses
from regionedit.command_line import load_config
from regionedit.config import LossConfig, SearchConfig, TrainConfig
from regionedit.dtypes import resolve_training
from regionedit.evaluation.charts import draw_curves
from regionedit.region_predictor import RegionPredictor
from regionedit.training import NotFinite, RegionTraining, Stopped, train
from regionedit.training.schedule import commitment, learning_rate, loss_weights
from regionedit.training.scores import RegionScores, pointing
from tests.pairs import write_pairs
from tests.training_runs import StopAt, batch_for, command, logged


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("validation"), shards=1, truth=True)


@pytest.fixture
def make(tiny_train):
    return tiny_train


class Watch(Callback):
    """Records, step by step, what the assertions need."""

    def __init__(self):
        self.modes, self.module = set(), None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.module = module
        networks = [*module.frozen[:2], *module.frozen.generator.modules.values()]
        self.modes |= {m.training for network in networks for m in network.modules()}


def frozen_weights(module: RegionTraining) -> list[torch.Tensor]:
    clip, instruction_encoder, generator = module.frozen
    networks = [clip, instruction_encoder, *generator.modules.values()]
    return [t for n in networks for t in (*n.parameters(), *n.buffers())]


def test_a_run_leaves_everything_behind_and_frozen_networks_untouched(make, validation, caplog):
    config = make(
        f"--data.validation={validation}", "--log.validate_every_steps=1000", "--log.pictures_every_steps=2",
        "--profile=true",
    )  # fmt: skip
    before = [t.clone() for t in frozen_weights(RegionTraining(config))]
    watch = Watch()
    exported = train(config, [watch])
    assert watch.modes == {False}
    assert all(torch.equal(a, b) for a, b in zip(before, frozen_weights(watch.module), strict=True))

    out = Path(config.out)
    assert load_config(TrainConfig, out / "config.yaml") == resolve_training(config, "cpu")
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

    last = out / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    weights = RegionPredictor.from_config(config.predictor, 32, 4).state_dict()
    assert set(saved["state_dict"]) == {f"predictor.{name}" for name in weights}, "only what is trained"
    assert saved["global_step"] == 2 and saved["config"]["seed"] == 0
    assert last.stat().st_size < 4 * sum(v.numel() * v.element_size() for v in weights.values()) + 100_000

    predictor = RegionPredictor.from_pretrained(exported)
    trained = watch.module.predictor.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in predictor.state_dict().items())
    assert "local-dir:" in (exported / "README.md").read_text()
    assert json.loads((exported / "config.json").read_text())["grid"] == 4

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in caplog.text.splitlines()]
    calls = {row[0]: int(row[2]) for row in rows if len(row) == 5 and row[2].isdigit()}
    assert all(calls[stage] >= 2 for stage in ("encode", "predict", "generate", "result")), "the profile"
    assert any("train_dataloader_next" in action for action in calls)


def test_weight_zero_for_f_sem_leaves_it_untrained(make):
    """DDP without a search for unused parameters would otherwise wait for ever."""
    module = RegionTraining(make("--loss.alpha=0"))
    assert not any(p.requires_grad for p in module.predictor.semantic.parameters())


def test_a_stopped_run_goes_on_as_if_never_stopped(make, tmp_path):
    """12 samples in batches of 4: step 3 ends an epoch, so the stops lie before, at and after its end."""
    whole, parts = make("--max_steps=5"), make("--max_steps=5", f"--out={tmp_path / 'parts'}")
    train(whole)
    for stop_at, number in ((2, signal.SIGTERM), (3, signal.SIGINT), (4, signal.SIGTERM)):
        handler = signal.getsignal(number)
        with pytest.raises(Stopped) as stopped:
            train(parts, [StopAt(stop_at, number)])
        assert stopped.value.code == 128 + number
        assert signal.getsignal(number) == handler
        assert not (Path(parts.out) / "region_predictor").exists()
    train(parts)
    assert logged(parts) == logged(whole)
    first, second = (RegionPredictor.from_pretrained(Path(c.out) / "region_predictor") for c in (whole, parts))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_finished_run_can_be_repeated_and_extended_but_not_changed(make):
    config = make()
    train(config)
    first = logged(config)
    train(config)
    assert logged(config) == first
    with pytest.raises(ValueError, match="loss.area: is 0.7, but the run .* 0.5"):
        train(make("--loss.area=0.7"))
    train(make("--max_steps=4", "--log.checkpoint_every_steps=3"))
    assert sorted(logged(config)) == [1, 2, 3, 4]


def test_a_run_too_short_to_log_anything_is_exported(make):
    config = make("--max_steps=1", "--log.every_steps=50")
    train(config)
    assert not (Path(config.out) / "metrics.csv").exists()
    assert "Not recorded." in (Path(config.out) / "region_predictor" / "README.md").read_text()


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
    """With a clock that gives every step a quarter of a second. A step reads it before it ends, so a step is late."""
    monkeypatch.setattr(RegionTraining, "seconds", lambda self: 0.25 * self.global_step)
    config = make("--max_steps=100000", "--max_seconds=1.5", "--optimizer.warmup_steps=1")
    train(config)
    rates = logged(config, "train/lr")
    assert sorted(rates) == [1, 2, 3, 4, 5, 6, 7]
    settings = config.optimizer
    assert all(np.isclose(rates[step], learning_rate(settings, step, max(0, step - 2) / 6)) for step in rates)
    train(config)  # finished: exports again, trains no more
    assert logged(config, "train/lr") == rates


def test_learning_rate_warms_up_and_decays():
    settings = TrainConfig().optimizer
    assert learning_rate(settings, 0, 0.0) == settings.lr / settings.warmup_steps
    assert learning_rate(settings, 1000, 0.0) == settings.lr
    assert np.isclose(learning_rate(settings, 1000, 1.0), settings.lr * settings.final_lr)
    rates = [learning_rate(settings, 1000, i / 10) for i in range(11)]
    assert rates == sorted(rates, reverse=True)


def test_two_processes_see_the_same_losses_as_one(make, validation, tmp_path):
    changes = ["--max_steps=3", f"--data.validation={validation}"]
    one = make(*changes)
    two = make(*changes, f"--out={tmp_path / 'two'}", "--trainer.devices=2", "--trainer.strategy=ddp")
    train(one)
    process = command(two, tmp_path)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert errors.count("GLOBAL_RANK: 0") == errors.count("GLOBAL_RANK: 1") == 1, "a rank says it twice"
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
    assert "run the same command to continue" in errors and "Traceback" not in errors
    assert (Path(config.out) / "checkpoints" / "last.ckpt").exists()


def test_pointing_by_hand():
    objects = torch.zeros(3, 3, 4, 4, dtype=torch.bool)
    objects[:, 0, :2, :2] = True
    objects[:, 1, 2:, 2:] = True
    objects[2, 0] = False  # names nothing
    probability_BN = torch.tensor([[0.9, 0.0, 0.0, 0.1], [0.2, 0.0, 0.0, 0.3], [0.9, 0.0, 0.0, 0.1]])
    found = pointing(probability_BN, tuple(objects), grid=2)
    assert found[:2].tolist() == [1, 0] and found[2].isnan()
    assert pointing(probability_BN[:1], (objects[0, :1],), 2).isnan()
    assert pointing(torch.full((1, 4), 0.3), (objects[0, :2],), 2).item() == 0.5, "a flat map scores chance"


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


def test_entropy_weight_falls_to_zero_and_nothing_else_changes():
    settings = LossConfig(entropy=-1.0, entropy_until=0.5, area=0.3)
    assert [loss_weights(settings, share).entropy for share in (0.0, 0.25, 0.5, 0.9)] == [-1.0, -0.5, 0.0, 0.0]
    assert loss_weights(settings, 0.9).area == 0.3
    assert loss_weights(LossConfig(entropy=-1.0), 0.9).entropy == -1.0


def test_the_commitment_to_searched_regions_rises():
    settings = SearchConfig(commitment=0.4, commitment_until=0.5)
    assert [commitment(settings, share) for share in (0.0, 0.25, 0.5, 0.9)] == [0.0, 0.2, 0.4, 0.4]
    assert commitment(SearchConfig(commitment=0.4), 0.0) == 0.4
