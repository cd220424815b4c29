"""The study of Focus on Your Instruction (FoI): its scores checked by hand, and one small run."""

from dataclasses import replace

import foi_study
import known_edits
import pytest
import torch

from regionedit.config import InstructPix2PixConfig


@pytest.fixture
def known():
    return known_edits.known_edits("validation", 0, range(2), ("remove", "recolour"))


def test_the_true_edit_succeeds_and_changes_nothing_outside(known):
    target_BCHW = known_edits.pictures([edit.target for edit in known.edits])
    found = foi_study.scores(target_BCHW, known, known.source_BCHW)
    assert found["success"] == 1 and found["change_outside_truth"] < 1e-3
    decoded_BCHW = (known.source_BCHW + 0.1).clamp(0, 1)
    unchanged = foi_study.scores(known.source_BCHW, known, decoded_BCHW)
    assert unchanged["success"] == 0 and unchanged["change_outside_truth"] == 0
    assert 0 < unchanged["own_change_outside_truth"] <= 0.1
    assert foi_study.scores(decoded_BCHW, known, decoded_BCHW)["own_change_outside_truth"] == 0


def test_attention_is_scored_by_threshold():
    truth_B1HW = torch.zeros(1, 1, 4, 4)
    truth_B1HW[..., :2, :2] = 1
    map_B1HW = torch.zeros(1, 1, 4, 4)
    map_B1HW[..., :2, :4] = 0.55
    map_B1HW[..., 0, 0] = 0.65
    found = foi_study.attention_scores(map_B1HW, truth_B1HW)
    assert found["iou at 0.5"] == pytest.approx(4 / 8) and found["iou at 0.6"] == pytest.approx(1 / 4)
    assert found["iou at 0.7"] == 0 and found["highest place inside"] == 1


def test_one_small_run(known, tiny_edit_config, tiny_ip2p_dir, monkeypatch):
    monkeypatch.setattr(foi_study, "VARIANTS", {name: foi_study.VARIANTS[name] for name in ("plain", "FoI")})
    settings = {"size": 64, "num_inference_steps": 4, "guidance_scale": 2.0, "attention_resolution": 8}
    generator = InstructPix2PixConfig(path=str(tiny_ip2p_dir), **settings)
    found = foi_study.study(replace(tiny_edit_config, generator=generator), known)
    assert list(found["attention"]) == ["first step", "first 2 steps", "first 4 steps"]
    rows = ["the source, encoded and decoded", "plain", "FoI, attention", "FoI, learned", "FoI, truth"]
    assert list(found["edits"]) == rows
    assert found["edits"]["plain"] != found["edits"]["FoI, truth"]
