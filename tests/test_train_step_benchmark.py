"""The full-size benchmark: a failing system does not lose the rest, and a stopped run leaves its table."""

import pytest
import torch

from benchmarks import train_step


def test_a_failure_is_a_row_and_the_literal_baseline_is_last_and_shrinks_until_it_fits(monkeypatch, tmp_path):
    order, recorded = [], {}

    def rate(config, device, batch):
        literal = config.step.gradient == "full" and not config.memory.frozen_convolutions
        order.append(("literal" if literal else config.out.removeprefix("outputs/train_sd15_"), batch))
        if literal and batch > 2:
            raise torch.cuda.OutOfMemoryError("too large")
        if "max256" in config.out:
            raise RuntimeError("broken")
        return 10.0 * batch, 0.0

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
    assert "| max256 | 32 | RuntimeError: broken |  |  |" in lines and lines[-1].startswith("| literal | 2 | 20 |")
    assert recorded["train_step_paper256_full_size"] == (320.0, 20.0)
    assert "train_step_max256_full_size" not in recorded


def test_a_stopped_run_leaves_what_it_had_measured(monkeypatch, tmp_path):
    def rate(config, device, batch):
        if "max256" in config.out:
            raise KeyboardInterrupt
        return 5.0, 0.0

    monkeypatch.setattr(train_step, "full_size_rate", rate)
    precision = torch.get_float32_matmul_precision()
    with pytest.raises(KeyboardInterrupt):
        train_step.full_size(4, 1, tmp_path / "table.md")
    torch.set_float32_matmul_precision(precision)
    text = (tmp_path / "table.md").read_text()
    assert "| paper256 | 4 | 5 |" in text and "| fast512 | 4 | 5 |" in text and "max256" not in text
