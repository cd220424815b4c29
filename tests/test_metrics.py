"""Every metric by numbers worked out by hand: tiny pictures, invented embeddings, masks one can count.

Metrics by embeddings and of regions have files of their own, the microworld's are in test_microworld_metrics.py.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from regionedit.config import EvaluateConfig, VlmJudgeConfig
from regionedit.evaluation import METRICS
from regionedit.evaluation.backbones import load_backbone
from regionedit.evaluation.benchmarks.magicbrush import TurnHistory
from regionedit.evaluation.judge import ANSWERED, Judge
from regionedit.evaluation.judge_metrics import OR_ZERO, UNANSWERED, Judged
from regionedit.evaluation.metrics import Settings
from regionedit.evaluation.microworld_scores import MicroworldMeasure
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.rubrics import RUBRICS, ImgEdit
from tests import metric_models
from tests.metric_cases import case, flat, mask, noise, paint, plain, value

BACKGROUND = [f"background_{name}{variant}" for name in ("psnr", "ssim", "mse", "lpips") for variant in ("", "_pie")]


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_judge_dir, tiny_dino_dir):
    """All backbones, tiny and random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", metric_models.random_features)
        load_backbone.cache_clear()
        config = EvaluateConfig(
            device="cpu",
            grid=4,
            judge=f"local-dir:{tiny_judge_dir}",
            dino=str(tiny_dino_dir),
            dinov2=str(metric_models.write_dinov2(tmp_path_factory.mktemp("dinov2"))),
            pick_score=metric_models.write_pick_score(tmp_path_factory.mktemp("pick"), tmp_path_factory.mktemp("p")),
            structure=str(tiny_dino_dir),
            lpips="squeeze",
            vlm_judge=VlmJudgeConfig(model="m", prompts=str(write_rubric(tmp_path_factory.mktemp("r") / "r.json"))),
        )
        load_backbone("lpips", "squeeze", "cpu")
        yield config
    load_backbone.cache_clear()


def write_rubric(path: Path) -> Path:
    path.write_text(json.dumps(dict.fromkeys(ImgEdit.kinds, "rate <edit_prompt>")))
    return path


def answered(outcome: Outcome, config: EvaluateConfig, number: int) -> Outcome:
    """With stored answers of the configured judge, for each rubric; about case 3 it was not willing to answer."""
    state = "refused" if number == 3 else ANSWERED
    texts = {"semantics": f"[{number}, 9]", "quality": "[7, 8]", "rubric": f"Prompt Compliance: {1 + number % 5}"}
    stored = {}
    for name in RUBRICS:
        judge = Judge.from_config(config.vlm_judge, name)
        answers = [{"question": q.name, "state": state, "text": texts[q.name]} for q in judge.rubric.questions(outcome)]
        stored[judge.key] = {"shown": outcome.shown, "answers": answers}
    return replace(outcome, answers=stored)


@pytest.fixture(scope="module")
def cases(config) -> list[Outcome]:
    """Pictures of several shapes and sizes, all that any metric can ask for, one failure among them."""
    outcomes = []
    words = ["red circle", "blue square", "green star", "purple heart", "orange ring", "yellow triangle"]
    for i, (width, height) in enumerate([(64, 64), (64, 64), (72, 64), (64, 80), (64, 64), (64, 64)]):
        source = noise(i, width, height)
        truth_mask = mask((8, 8, 40, 48), width, height)
        captions = ("a picture", f"a {words[i]}")
        made = case(source, paint(source, (10, 10, 38, 44), 200), truth_mask, captions, f"add a {words[i]}")
        made = replace(made, truth=TurnHistory(source, truth_mask))
        probability = np.random.default_rng(10 + i).random((height, width)).astype(np.float32)
        picture = paint(source, (0, 0, 20 + i, 30), 40 * i)
        found = (probability > 0.5).astype(np.float32)
        outcomes.append(Outcome(made, picture, found, probability, focus=found))
    outcomes[1] = replace(outcomes[1], failed="no luck")  # though a picture of an earlier run is there
    outcomes[2] = replace(outcomes[2], picture=outcomes[2].picture.resize((50, 44)))  # another size than its source
    outcomes[4] = replace(outcomes[4], picture=flat(0, 64))  # black, as a safety checker leaves it
    outcomes[5] = replace(outcomes[5], picture=outcomes[5].case.request.image)  # not edited at all
    return [answered(outcome, config, number) for number, outcome in enumerate(outcomes)]


@pytest.mark.parametrize("name", METRICS)
def test_a_batch_of_one_equals_a_batch_of_all_and_a_failed_case_is_nan(name, config, cases):
    together, alone = METRICS[name].from_config(config), METRICS[name].from_config(config)
    together.update(cases)
    for backbone in ("judge", "dino", "dinov2", "pick_score"):
        load_backbone(backbone, getattr(config, backbone), config.device).pictures.known.clear()
    for outcome in cases:
        alone.update([outcome])
    assert alone.values().tolist() == pytest.approx(together.values().tolist(), abs=1e-4, nan_ok=True)
    assert math.isnan(together.values()[1])
    if not isinstance(METRICS[name], MicroworldMeasure):
        # A judge refused case 3, and without a change there is no place.
        refused = isinstance(METRICS[name], Judged) and METRICS[name].part not in (OR_ZERO, UNANSWERED)
        undefined = {3: refused, 5: name in ("landed_outside", "landed_position", "landed_size")}
        for number in (0, 2, 3, 4, 5):
            assert together.values()[number].isnan() == undefined.get(number, False)
        assert together.compute() == pytest.approx(np.nanmean(together.values()))


@pytest.mark.parametrize("name", METRICS)
def test_a_case_that_lacks_something_is_nan_and_the_metric_says_what(name, config, cases):
    metric = METRICS[name].from_config(config)
    bare = replace(cases[0], case=case(noise(0)), mask=None, probability=None, focus=None, answers={})
    metric.update([bare, bare, replace(bare, picture=None, failed="no luck")])
    if METRICS[name].needs:
        assert metric.values().isnan().all()
        first = next(need for need in METRICS[name].needs)
        assert metric.why_missing() == f"needs {first} (2 cases have none)"
    elif not isinstance(METRICS[name], MicroworldMeasure):
        assert metric.why_missing() == ""


def test_without_a_backbone_there_is_no_value_and_it_is_said_once(cases):
    without = EvaluateConfig(device="cpu")
    for name in ("dinov2", "dinov2_source", "pick_score", "structure_distance", "background_lpips"):
        metric = METRICS[name].from_config(without)
        metric.update(cases)
        assert metric.values().isnan().all() and len(metric.values()) == len(cases)
        assert metric.why_missing() == f"needs the backbone {METRICS[name].backbone}"
    rank = METRICS["clip_instruction_rank"].metric(Settings())
    rank.update(cases)
    assert rank.values().isnan().all() and len(rank.values()) == len(cases)


IDENTITY = {
    **dict.fromkeys(["l1_source", "l2_source", "clip_direction", "clip_direction_raw", "structure_distance"], 0.0),
    **dict.fromkeys(["clip_image_source", "dino_source", "dinov2_source"], 1.0),
    **dict.fromkeys([f"background_{name}{variant}" for name in ("mse", "lpips") for variant in ("", "_pie")], 0.0),
    **dict.fromkeys(["background_ssim", "background_ssim_pie"], 1.0),
    **dict.fromkeys(["outside_change", "outside_truth_change", "change_iou"], 0.0),
}


@pytest.mark.parametrize("name", IDENTITY)
def test_an_unchanged_picture_is_perfectly_preserved_and_goes_nowhere(name, config, cases):
    assert value(METRICS[name].from_config(config), cases[5]) == pytest.approx(IDENTITY[name], abs=1e-6)


@pytest.mark.parametrize("name", ["l1", "l2", "clip_image", "dino", "dinov2"])
def test_the_target_itself_is_perfect_and_the_source_is_not(name, config, cases):
    made = cases[0].case
    outcomes = [Outcome(made, picture) for picture in (made.truth_image, made.request.image)]
    best, other = value(METRICS[name].from_config(config), *outcomes)
    assert best == pytest.approx(1.0 if METRICS[name].higher_is_better else 0.0, abs=1e-6)
    assert abs(other - best) > 1e-3


def test_l1_and_l2_are_means_over_one_picture_in_0_1():
    """51 levels are 0.2: one of four pixels differs by 0.2 in all channels, one by 0.6 in one of them."""
    reference = flat(0, 2)
    edited = reference.copy()
    edited.putpixel((0, 0), (51, 51, 51))
    edited.putpixel((1, 1), (0, 153, 0))
    against_target = Outcome(case(flat(255, 2), reference), edited)
    assert value(plain("l1"), against_target) == pytest.approx((3 * 0.2 + 0.6) / 12, abs=1e-6)
    assert value(plain("l2"), against_target) == pytest.approx((3 * 0.04 + 0.36) / 12, abs=1e-6)
    against_source = Outcome(case(reference, flat(255, 2)), edited)
    assert value(plain("l1_source"), against_source) == pytest.approx(1.2 / 12, abs=1e-6)
    assert value(plain("l2_source"), against_source) == pytest.approx(0.48 / 12, abs=1e-6)


def test_the_mean_is_over_pictures_not_over_pixels():
    metric = plain("l1_source")
    metric.update([Outcome(case(flat(0, 2)), flat(255, 2)), Outcome(case(flat(0, 20)), flat(0, 20))])
    assert metric.compute() == pytest.approx(0.5)


def test_the_edited_picture_is_resized_to_the_reference_by_pil():
    """Resized as a tensor, without antialiasing, the same pictures would differ by much more than systems do."""
    edited, reference = noise(1, 50, 40), noise(2, 24, 30)
    wanted = np.asarray(reference, float) / 255
    by_pil = np.asarray(edited.resize((24, 30), Image.Resampling.BICUBIC), float) / 255
    tensor = torch.from_numpy(np.array(edited, np.float32) / 255).permute(2, 0, 1)[None]
    by_tensor = F.interpolate(tensor, (30, 24), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).numpy()
    found = value(plain("l1"), Outcome(case(noise(3, 70, 70), reference), edited))
    assert found == pytest.approx(np.abs(by_pil - wanted).mean(), abs=1e-6)
    assert abs(found - np.abs(by_tensor - wanted).mean()) > 0.005


def test_a_picture_with_alpha_or_of_grey_is_compared_as_rgb():
    grey, with_alpha = flat(51, 2).convert("L"), flat(102, 2).convert("RGBA")
    assert value(plain("l1"), Outcome(case(flat(0, 2), with_alpha), grey)) == pytest.approx(0.2, abs=1e-6)


# The upper half is masked. Edited: white inside, 0.2 (51 levels) outside; source black. With the frame, 3 x 6 of 8 x 8
# pixels are left.
HALF = case(flat(0), truth_mask=mask((0, 0, 8, 4)))
PAINTED = paint(flat(51), (0, 0, 8, 4), 255)


def test_masked_psnr_and_mse_are_over_the_background_alone():
    assert value(plain("background_mse"), Outcome(HALF, PAINTED)) == pytest.approx(0.04, abs=1e-6)
    assert value(plain("background_psnr"), Outcome(HALF, PAINTED)) == pytest.approx(-10 * math.log10(0.04), abs=1e-5)


def test_the_pie_variant_has_a_frame_and_a_mean_over_the_whole_picture():
    mse = 0.04 * 18 / 64
    assert value(plain("background_mse_pie"), Outcome(HALF, PAINTED)) == pytest.approx(mse, abs=1e-6)
    assert value(plain("background_psnr_pie"), Outcome(HALF, PAINTED)) == pytest.approx(-10 * math.log10(mse), abs=1e-5)


def test_pie_numbers_are_torchmetrics_of_multiplied_pictures(cases):
    """PIE-Bench's code by hand, on pictures with detail."""
    outcome = cases[0]
    keep = np.ones((64, 64, 1), np.float32)
    keep[8:48, 8:40] = keep[[0, -1]] = keep[:, [0, -1]] = 0
    edited, source = (
        torch.from_numpy(np.asarray(picture, np.float32) / 255 * keep).permute(2, 0, 1)[None]
        for picture in (outcome.picture, outcome.case.request.image)
    )
    psnr, ssim = PeakSignalNoiseRatio(data_range=1.0), StructuralSimilarityIndexMeasure(data_range=1.0)
    assert value(plain("background_psnr_pie"), outcome) == pytest.approx(float(psnr(edited, source)), abs=1e-5)
    assert value(plain("background_ssim_pie"), outcome) == pytest.approx(float(ssim(edited, source)), abs=1e-6)


def test_ssim_of_flat_pictures_is_its_luminance_term():
    """Without variance SSIM is (2 a b + c1) / (a^2 + b^2 + c1) with c1 = 0.01^2; a = 0.2, b = 0.4."""
    made = case(flat(102), truth_mask=mask(None))
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.04 + 0.16 + 1e-4)
    assert value(plain("background_ssim"), Outcome(made, flat(51))) == pytest.approx(expected, abs=1e-4)


def test_masked_ssim_is_the_map_over_the_background():
    """Rows 16 and below are 11 pixels away from the changed row 5: where the window cannot reach, SSIM is 1."""
    source = noise(0, 20, 30)
    edited = paint(source, (0, 5, 20, 6), 0)
    far = value(plain("background_ssim"), Outcome(case(source, truth_mask=mask((0, 0, 20, 16), 20, 30)), edited))
    near = value(plain("background_ssim"), Outcome(case(source, truth_mask=mask((0, 16, 20, 30), 20, 30)), edited))
    assert far == pytest.approx(1, abs=1e-6)
    assert near < 0.99


@pytest.mark.parametrize("name", BACKGROUND)
def test_what_happens_inside_the_mask_changes_no_background(name, config, cases):
    """Not even through a window or a receptive field that reaches inside."""
    outcome = cases[0]
    inside = replace(outcome, picture=paint(outcome.picture, (8, 8, 40, 48), 0))
    outside = replace(outcome, picture=paint(outcome.picture, (41, 49, 60, 60), 0))
    metric = METRICS[name].from_config(config)
    first, second, third = value(metric, outcome, inside, outside)
    assert first == pytest.approx(second, abs=1e-6)
    assert abs(first - third) > 1e-6


@pytest.mark.parametrize("name", BACKGROUND)
def test_a_mask_without_background_has_no_value(name, config):
    full = case(noise(0), truth_mask=mask((0, 0, 64, 64), 64, 64))
    assert math.isnan(value(METRICS[name].from_config(config), Outcome(full, noise(1))))
    all_but_frame = case(noise(0), truth_mask=mask((1, 1, 63, 63), 64, 64))
    found = value(METRICS[name].from_config(config), Outcome(all_but_frame, noise(1)))
    assert math.isnan(found) == name.endswith("_pie")


def test_an_untouched_background_has_the_psnr_of_the_smallest_difference():
    """8 x 4 x 3 values, one of them off by one level of 255."""
    untouched = paint(flat(0), (0, 0, 8, 4), 255)
    smallest = untouched.copy()
    smallest.putpixel((7, 7), (1, 0, 0))
    expected = 10 * math.log10(255**2 * 96)
    found = value(plain("background_psnr"), Outcome(HALF, untouched), Outcome(HALF, smallest))
    assert found == pytest.approx([expected, expected], abs=1e-4)


def test_structure_distance_and_lpips_ask_their_networks_for_both_pictures():
    class Difference:
        def distance(self, a_CHW, b_CHW):
            return float((a_CHW - b_CHW).abs().sum())

        def map(self, a_CHW, b_CHW):
            return (a_CHW - b_CHW).abs().sum(0)

    def distance(name: str) -> float:
        return value(METRICS[name].metric(Settings(Difference())), Outcome(HALF, PAINTED))

    assert distance("structure_distance") == pytest.approx(96 + 96 * 0.2, rel=1e-5)
    assert distance("background_lpips") == pytest.approx(0.6, abs=1e-5)
    assert distance("background_lpips_pie") == pytest.approx(18 * 0.6, rel=1e-5)


def test_a_picture_too_small_for_ssim_has_none():
    tiny = Outcome(case(flat(0, 4), truth_mask=mask((0, 0, 2, 2), 4, 4)), flat(9, 4))
    assert math.isnan(value(plain("background_ssim"), tiny))
