"""Two instructions on one picture: which edits are chosen, and when both succeed."""

from dataclasses import replace

import known_edits
import pytest
import several_study
import torch

from regionedit.config import InstructPix2PixConfig
from regionedit.generators import load_generator


@pytest.fixture
def edits():
    return several_study.pairs(2, 0)


def test_the_two_edits_are_of_different_objects_of_one_picture(edits):
    for first, second in zip(edits.first.edits, edits.second.edits, strict=True):
        assert first.source == second.source and first.named != second.named
    assert not (edits.masks_BKHW[:, 0] * edits.masks_BKHW[:, 1]).mean() > 0.02
    assert torch.equal(edits.first.source_BCHW, edits.second.source_BCHW)


def test_one_of_two_edits_done_is_half(edits):
    first_BCHW = known_edits.pictures([edit.target for edit in edits.first.edits])
    found = several_study.scores(first_BCHW, edits)
    assert found["success"] == pytest.approx(0.5) and found["both"] == 0 and found["change_outside_truth"] < 1e-3
    second_BCHW = known_edits.pictures([edit.target for edit in edits.second.edits])
    own_B1HW = edits.masks_BKHW[:, 1:]
    found = several_study.scores(second_BCHW * own_B1HW + first_BCHW * (1 - own_B1HW), edits)
    assert found["both"] == 1 and found["success"] == 1


@pytest.mark.parametrize("together", [True, False])
def test_one_small_run(edits, together, tiny_ip2p_dir):
    config = InstructPix2PixConfig(
        path=str(tiny_ip2p_dir), size=64, num_inference_steps=2, guidance_scale=2.0, attention_resolution=8
    )
    generator = load_generator(replace(config, **several_study.FOI))
    made_BCHW = several_study.repaint(generator, edits, together)
    assert made_BCHW.shape == edits.first.source_BCHW.shape and torch.isfinite(made_BCHW).all()
    assert not torch.equal(made_BCHW, several_study.repaint(generator, edits, not together))
