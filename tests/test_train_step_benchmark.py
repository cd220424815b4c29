"""The full-size benchmark: every row is a run of train() with its loader, also on two ranks; a row that fails, hangs or
does not fit costs no other row, and a stopped run leaves its table."""

import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from benchmarks import full_size_data, full_size_rows, full_size_run, harness
from benchmarks.full_size_rows import Measured
from benchmarks.harness import PRESETS
from benchmarks.microworld_step import Timed
from regionedit.training import RegionTraining
from regionedit.training.networks import load_frozen
from tests.training_runs import batch_for, tiny_preset

FORK = multiprocessing.get_context("fork")
ROWS = [*PRESETS, "literal"]
SOME = ("stored", "max256", "paper256", "literal")


@pytest.fixture
def tiny_rows(monkeypatch, tmp_path, tiny_train, tiny_decoder_dir):
    """Every row with tiny models, a few tiny pictures and a few steps."""
    models = tiny_train()
    cheap = ("--generator.dtype=float32", "--generator.num_inference_steps=2")
    with_worker = {"stored": ("--data.workers=1",)}
    made = {name: tiny_preset(name, models, tiny_decoder_dir, *cheap, *with_worker.get(name, ())) for name in PRESETS}
    monkeypatch.setattr(full_size_rows, "preset", lambda name, **_: made[name])
    monkeypatch.setattr(full_size_rows, "frozen_networks", lambda config, device: load_frozen(config))
    for module, name, value in (
        (full_size_data, "SAMPLES", 8), (full_size_data, "SHARD", 4), (full_size_data, "POOL", 3),
        (full_size_data, "EPOCH_STEPS", 2), (full_size_rows, "WARM_STEPS", 1), (full_size_rows, "LEAST_STEPS", 1),
        (full_size_rows, "STAGED_STEPS", 1), (full_size_run, "TIMED_SECONDS", 0.0), (full_size_run, "SPAWN", FORK),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(harness, "record", lambda *_: None)


class Answers(list):
    """Takes a connection's place."""

    send = list.append


def test_every_row_is_a_run_of_training_on_the_benchmarks_shards(tiny_rows, tmp_path, monkeypatch):
    answers, seen = Answers(), []
    step = RegionTraining.training_step

    def training_step(module, batch, index):
        found = step(module, batch, index)
        seen.append((module.trainer, module.config, batch, found["loss"].item()))
        return found

    monkeypatch.setattr(RegionTraining, "training_step", training_step)
    full_size_rows.measure([(name, 2) for name in ROWS], tmp_path / "rows", 0.0, answers)
    assert [kind for kind, _ in answers] == ["found", "found", "done"] * len(ROWS)
    rows = [found for kind, found in answers if kind == "found"][1::2]
    for name, row in zip(ROWS, rows, strict=True):
        stages = dict(part.split() for part in row.stages.split(", "))
        assert {*stages} == {"encode", "predict", "generate", "result", "gradient", "loader", "other"}, name
        assert 97 <= sum(int(share[:-1]) for share in stages.values()) <= 103
        assert row.rate > 0 and 0 < row.loader < 1 and row.processes == 1 and row.peak is None
    assert len(seen) == len(ROWS) * 3
    for trainer, config, batch, loss in seen:
        assert trainer.optimizers and trainer.strategy.__class__.__name__ == "SingleDeviceStrategy"
        assert (
            batch.images_BCHW.dtype == torch.uint8 and {"instruction_ids"} <= {*batch.tokens} and len(batch.keys) == 2
        )
        assert (batch.proposals_BCHW is None) == (config.data.proposals is None)
        assert (batch.latents_BChw is None) == (batch.source_text_BD is None) == (config.data.features is None)
        assert math.isfinite(loss)
    assert not any((tmp_path / "rows").iterdir()), "a row's data and run are deleted"


@pytest.mark.slow
def test_two_ranks_measure_rows_and_go_on_together_after_one_has_failed(tiny_rows, tmp_path, monkeypatch):
    def networks(config, device):
        if "max256" in config.out and os.environ["RANK"] == "1":
            raise RuntimeError("broken")
        return load_frozen(config)

    monkeypatch.setattr(full_size_rows, "frozen_networks", networks)
    process = FORK.Process(target=_two_ranks, args=(tmp_path / "table.md",))
    process.start()
    process.join(290)
    process.kill()
    assert process.exitcode == 0
    rows = dict(zip(SOME, table_of(tmp_path / "table.md"), strict=True))
    assert "2 x CPU" in (tmp_path / "table.md").read_text()
    for name in ("stored", "paper256", "literal"):
        assert rows[name]["batch"] == "2" and float(rows[name]["pictures/s"]) > 0 and "gradient" in rows[name]["stages"]
    assert not rows["max256"]["stages"]


def _two_ranks(out: Path) -> None:
    ranks = LaunchConfig(1, 1, 2, run_id="test", rdzv_backend="c10d", max_restarts=0, start_method="fork")
    elastic_launch(ranks, full_size_run.run)(2, 2, 280.0, 60.0, out, SOME)


def table_of(path: Path) -> list[dict[str, str]]:
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in path.read_text().splitlines()[2:])
    return [dict(zip(head, row, strict=True)) for row in rows]


def mishaps(rows, folder, seconds, environment, answers):
    """Takes the place of `_measure`: every preset has another mishap."""
    for name, batch in rows:
        if name == "max256":
            answers.send(("failed", "RuntimeError: broken"))
            return
        if name == "paper256":
            time.sleep(60)
        if name == "fast512":
            os._exit(1)
        if name == "literal" and batch > 2:
            answers.send(("failed", "OutOfMemoryError: too large"))
            return
        answers.send(("found", Measured(None, 1, 10.0 * batch, None, 0.25)))
        if name == "exact512":
            time.sleep(60)  # while it times the stages
        answers.send(("done", ""))


def test_no_mishap_of_a_row_costs_another(monkeypatch, tmp_path):
    recorded = {}
    monkeypatch.setattr(full_size_run, "SPAWN", FORK)
    monkeypatch.setattr(full_size_run, "_measure", mishaps)
    monkeypatch.setattr(harness, "record", lambda name, ours, other, *_: recorded.update({name: (ours, other)}))
    full_size_run.run(32, 8, 60.0, 1.0, tmp_path / "table.md")
    rows = {row["preset"]: row for row in table_of(tmp_path / "table.md")}
    assert list(rows) == ROWS, "the literal baseline is last"
    assert {name: row["batch"] for name, row in rows.items()} == dict.fromkeys(PRESETS, "32") | {"literal": "2"}
    assert {name: row["pictures/s"] for name, row in rows.items()} == {
        "stored": "320",
        "max256": "RuntimeError: broken",
        "paper256": "ended after 1 s",
        "fast512": "its process died",
        "exact512": "320",
        "literal": "20",
    }
    assert rows["stored"]["waits for the loader"] == "25%"
    assert {*recorded} == {"train_step_stored_full_size", "train_step_exact512_full_size"}
    assert recorded["train_step_stored_full_size"] == (320.0, 20.0)


PROGRAM = """
import multiprocessing, pathlib, sys, types

rows = types.ModuleType("benchmarks.full_size_rows")
rows.measure = lambda *given: given[-1].send(("failed", multiprocessing.get_start_method()))
sys.modules[rows.__name__] = rows
if __name__ == "__main__":
    from benchmarks.full_size_run import run

    run(1, 1, 60, 60, pathlib.Path(sys.argv[1]), ["stored"])
    assert "torch" not in sys.modules
"""


def test_rows_start_loader_processes_as_training_does(tmp_path):
    """Although their own process is spawned, so that CUDA works in it. The one beside it does not import torch."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}"}
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "table.md")]
    subprocess.run(words, env=environment, check=True, timeout=100)
    assert table_of(tmp_path / "table.md")[0]["pictures/s"] == "fork"


def test_rows_without_time_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(full_size_run, "SPAWN", FORK)
    monkeypatch.setattr(full_size_run, "_measure", mishaps)
    full_size_run.run(32, 8, 1.0, 60.0, tmp_path / "table.md")
    found = [row["pictures/s"] for row in table_of(tmp_path / "table.md")]
    assert found[0] == "320" and found[3:] == [full_size_run.NOT_RUN] * 3


def test_a_stopped_run_leaves_what_it_had_measured(monkeypatch, tmp_path):
    received = iter([("found", Measured(None, 1, 5.0, None, 0.0)), ("done", "")])

    def receive(answers, limit):
        if (answer := next(received, None)) is None:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(full_size_run, "SPAWN", FORK)
    monkeypatch.setattr(full_size_run, "_measure", lambda *_: None)
    monkeypatch.setattr(full_size_run, "_receive", receive)
    with pytest.raises(KeyboardInterrupt):
        full_size_run.run(4, 1, 60.0, 60.0, tmp_path / "table.md")
    rows = table_of(tmp_path / "table.md")
    assert [row["pictures/s"] for row in rows] == ["5", *[full_size_run.NOT_RUN] * 5]


def test_a_row_has_what_a_gpu_tells():
    """Of 3.90 TFLOP a picture, 0.53 run as TF32 at half the rate: 39 pictures a second are 55 % of an A100's peak."""
    found = Measured("NVIDIA A100-SXM4-80GB", 8, 8 * 39.0, 38.94, 0.004, 1, "generate 60%, gradient 40%")
    row = full_size_run.cells("paper256", 32, found)
    assert row == ("32", "312", "38.9", "55%", "0%", "1", "generate 60%, gradient 40%")
    counts = json.loads(harness.RESULTS.read_text())
    assert sum(full_size_run.counted("literal")) == pytest.approx(counts["step_exact512"]["baseline"])


def test_the_microworlds_step_is_the_one_that_trains(tiny_train):
    """It has all stages, ends in changed weights, and its loss is the training step's."""
    module = RegionTraining(tiny_train("--step.proposal_mask=predicted_hard"))
    system = Timed(module, batch_for(module.config))
    before = [weight.clone() for weight in module.trained]
    shares = {entry.split()[0]: int(entry.split()[1][:-1]) for entry in system.shares(2).split(", ")}
    assert set(shares) == {"encode", "predict", "generate", "result", "gradient", "optimiser"}
    assert 97 <= sum(shares.values()) <= 103
    assert not any(torch.equal(a, b) for a, b in zip(before, module.trained, strict=True))
