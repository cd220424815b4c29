"""Calibration of the evaluation: known numbers are reproduced, MagicBrush's checksum, the published row."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from regionedit.config import EvaluateConfig
from regionedit.evaluation import calibration
from regionedit.evaluation.calibration import check_data, check_expected, checksum_verdict, magicbrush_checksum


def test_expected_numbers_are_reported_as_within_or_outside_the_tolerance():
    summary = {"metrics": {"clip_direction": {"mean": 0.0791}, "clip_text": {"mean": 0.29}}}
    expected = {"clip_direction": 0.0782, "clip_text": 0.2648, "l1": 0.1217}
    assert check_expected(summary, expected, 0.01) == [
        "clip_direction: 0.0791, expected 0.0782 ± 0.01: within (+0.0009)",
        "clip_text: 0.2900, expected 0.2648 ± 0.01: OUTSIDE (+0.0252)",
        "l1: not measured; expected 0.1217",
    ]
    with pytest.raises(ValueError, match="^expected.clip: no metric 'clip'; there are: "):
        check_expected(summary, {"clip": 1.0}, 0.01)


class Encoder:
    """Embeds pictures by the red value of their first pixel, and texts by their length."""

    def unit_pictures(self, pictures):
        return normalize(torch.tensor([[float(p.getpixel((0, 0))[0]), 1.0] for p in pictures]), dim=-1)

    def unit_texts(self, texts):
        return normalize(torch.tensor([[float(len(t)), 1.0] for t in texts]), dim=-1)


def target(red: int, caption: str | None, scored: bool = True):
    captions = None if caption is None else SimpleNamespace(target=caption)
    picture = Image.new("RGB", (4, 4), (red, 0, 0))
    return SimpleNamespace(id="1", scored=scored, truth_image=picture, request=SimpleNamespace(captions=captions))


def test_the_checksum_is_the_mean_cosine_of_targets_and_captions_and_needs_both():
    cases = [target(2, "ab"), target(0, "abc"), target(9, "unscored turn", scored=False)]
    assert magicbrush_checksum(cases, Encoder()) == (pytest.approx((1 + 1 / np.sqrt(10)) / 2, abs=1e-6), 2)
    many = [target(2, "ab")] * 70 + [target(0, "abc")] * 30
    assert magicbrush_checksum(many, Encoder()) == (pytest.approx(0.7 + 0.3 / np.sqrt(10), abs=1e-6), 100)
    with pytest.raises(ValueError, match="^1: the checksum needs target pictures and captions"):
        magicbrush_checksum([target(1, None)], Encoder())
    with pytest.raises(ValueError, match="needs cases"):
        magicbrush_checksum([], Encoder())


def test_the_checksum_is_printed_only_for_a_benchmark_and_clip_with_a_known_value(monkeypatch):
    monkeypatch.setattr(calibration, "load_backbone", lambda field, name, device: Encoder())
    cases = [target(2, "ab"), target(0, "abc")]
    config = EvaluateConfig(benchmark="magicbrush", judge="ViT-B-32,openai")
    assert [line[:40] for line in check_data(config, cases)] == ["MagicBrush checksum: 0.65811 over 2 cases"[:40]]
    assert check_data(replace(config, judge="ViT-L-14,openai"), cases) == []
    assert check_data(replace(config, benchmark="emu_edit"), cases) == []


@pytest.mark.parametrize(
    ("found", "n", "said"),
    [
        (0.28260, 1053, "0.28260, known 0.28259: right"),
        (0.28554, 535, "0.28554, known 0.28554: right"),
        (0.30690, 1053, "0.30690, known 0.28259: WRONG; about 0.307 means global"),
        (0.28554, 100, "over 100 cases; known only for 1,053 or 535 cases"),
    ],
)
def test_the_verdict_knows_all_turns_and_final_turns(found, n, said):
    assert said in checksum_verdict(found, n) and "\n" not in checksum_verdict(found, n)
