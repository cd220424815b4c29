"""The full-size benchmark: a failing system does not lose the rest, and a stopped run leaves its table."""

import pytest
import torch

from benchmarks import train_step
from tests.training_runs import batch_for


def test_a_failure_is_a_row_and_the_literal_baseline_is_last_and_shrinks_until_it_fits(monkeypatch, tmp_path):
    order, recorded = [], {}

    def rate(config, device, batch):
        literal = config.step.gradient == "full" and not config.memory.frozen_convolutions
        order.append(("literal" if literal else config.out.removeprefix("outputs/train_sd15_"), batch))
        if literal and batch > 2:
            raise torch.cuda.OutOfMemoryError("too large")
        if "max256" in config.out:
            raise RuntimeError("broken")
        return train_step.Measured(10.0 * batch, None, None, "generate 60%")

    monkeypatch.setattr(train_step, "full_size_rate", rate)
    monkeypatch.setattr(train_step, "record", lambda name, ours, other, *rest: recorded.update({name: (ours, other)}))
    precision = torch.get_float32_matmul_precision()
    try:
        train_step.full_size(32, 8, tmp_path / "table.md")
    finally:
        torch.set_float32_matmul_precision(precision)
    assert [name for name, _ in order[:5]] == list(train_step.PRESETS)
    assert order[5:] == [("literal", 8), ("literal", 4), ("literal", 2)]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| max256 | 32 | RuntimeError: broken |  |  |  |  |" in lines
    assert lines[-1] == "| literal | 2 | 20 |  |  |  | generate 60% |"
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert recorded["train_step_paper256_full_size"] == (320.0, 20.0)
    assert "train_step_max256_full_size" not in recorded


def test_a_stopped_run_leaves_what_it_had_measured(monkeypatch, tmp_path):
    def rate(config, device, batch):
        if "max256" in config.out:
            raise KeyboardInterrupt
        return train_step.Measured(5.0, None, None, "")

    monkeypatch.setattr(train_step, "full_size_rate", rate)
    precision = torch.get_float32_matmul_precision()
    with pytest.raises(KeyboardInterrupt):
        train_step.full_size(4, 1, tmp_path / "table.md")
    torch.set_float32_matmul_precision(precision)
    text = (tmp_path / "table.md").read_text()
    assert "| paper256 | 4 | 5 |" in text and "| fast512 | 4 | 5 |" in text and "max256" not in text


def test_a_row_has_what_a_gpu_tells(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(train_step, "step_operations", lambda config: {torch.bfloat16: 2e12, torch.float32: 1e12})
    found = train_step.Measured(rate=39.0, peak=38.94, waits=1, stages="generate 60%, gradient 40%")
    monkeypatch.setattr(train_step, "full_size_rate", lambda config, device, batch: found)
    row = train_step.measured_row(train_step.preset("paper256"), "cuda", 32, halve=False)
    assert row == (39.0, "32", "39", "38.9", "50%", "1", "generate 60%, gradient 40%")


def test_the_step_that_is_timed_is_the_one_that_trains(tiny_train):
    """It has all stages, ends in changed weights, and its loss is the training step's."""
    module = train_step.RegionTraining(tiny_train("--step.proposal_mask=predicted_hard"))
    system = train_step.Timed(module, batch_for(module.config))
    before = [weight.clone() for weight in module.trained]
    shares = {entry.split()[0]: int(entry.split()[1][:-1]) for entry in system.shares(2).split(", ")}
    assert set(shares) == {"encode", "predict", "generate", "result", "gradient", "optimiser"}
    assert 97 <= sum(shares.values()) <= 103
    assert not any(torch.equal(a, b) for a, b in zip(before, module.trained, strict=True))
