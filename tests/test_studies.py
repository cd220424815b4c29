"""The studies of experiments/: their scores checked by hand, and one small run of each."""

import json
from dataclasses import replace
from pathlib import Path

import change_map_study
import foi_study
import gradient_paths
import known_edits
import landscape
import mask_quality
import numpy as np
import patch_probe
import pytest
import several_study
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import EncodersConfig, EvaluateConfig, InstructPix2PixConfig, LossConfig, StableDiffusionConfig
from regionedit.encoders import load_encoders
from regionedit.generators import load_generator
from regionedit.microworld.splits import sample


@pytest.fixture
def known():
    return known_edits.known_edits("validation", 0, range(3), ("remove", "recolour"))


@pytest.fixture(scope="module")
def clip(tiny_clip_dir, tiny_t5_dir):
    return load_encoders(EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)))[0]


def square(top: int, left: int, side: int, count: int = 1) -> torch.Tensor:
    mask_B1HW = torch.zeros(count, 1, 64, 64)
    mask_B1HW[:, :, top : top + side, left : left + side] = 1
    return mask_B1HW


def test_shifts_go_right_down_left_and_up_and_do_not_wrap():
    moved = mask_quality.shift(square(0, 20, 10, 4), 4)
    assert torch.equal(moved[0], square(0, 24, 10)[0]) and torch.equal(moved[1], square(4, 20, 10)[0])
    assert torch.equal(moved[2], square(0, 16, 10)[0])
    assert moved[3].sum() == 6 * 10 and moved[3, :, :6, 20:30].all()


def test_true_cells_are_those_that_are_covered_by_more_than_a_quarter():
    three = square(8, 8, 16) - square(16, 16, 8)  # 12 px cover two neighbours by half, the last cell by just a quarter
    assert torch.equal(mask_quality.cells(square(8, 8, 12)), three)
    assert torch.equal(mask_quality.cells(square(8, 8, 13)), square(8, 8, 16))


def test_worse_masks_run(known, tiny_inpaint_dir):
    generator = load_generator(StableDiffusionConfig(path=str(tiny_inpaint_dir), size=32, num_inference_steps=1))
    names = ("truth", "everything", "eroded 2 px", "eroded 4 px")
    altered = {name: mask_quality.ALTERATIONS[name](known.truth_B1HW) for name in names}
    found = mask_quality.measure(generator, known, altered)
    assert set(found) == set(altered)
    assert found["truth"]["mask_iou"] == 1 and found["truth"]["change_outside_truth"] == 0
    assert found["everything"]["area"] == 1 and found["everything"]["change_outside_truth"] > 0
    assert found["eroded 4 px"]["mask_iou"] < found["eroded 2 px"]["mask_iou"] < 1


@pytest.mark.microworld
def test_a_learned_region_grows_with_its_dilation(known):
    found = mask_quality.learned(load_config(EvaluateConfig, "configs/evaluate_regions.yaml", []), known)
    areas = [float(mask_B1HW.mean()) for mask_B1HW in found.values()]
    assert list(found)[:2] == ["learned", "learned, 1 px wider"] and areas == sorted(set(areas))


def test_the_true_edit_succeeds_and_changes_nothing_outside(known):
    target_BCHW = known_edits.pictures([edit.target for edit in known.edits])
    found = foi_study.scores(target_BCHW, known, known.source_BCHW)
    assert found["success"] == 1 and found["change_outside_truth"] < 1e-3
    decoded_BCHW = (known.source_BCHW + 0.1).clamp(0, 1)
    unchanged = foi_study.scores(known.source_BCHW, known, decoded_BCHW)
    assert unchanged["success"] == 0 and unchanged["change_outside_truth"] == 0
    assert 0 < unchanged["own_change_outside_truth"] <= 0.1
    assert foi_study.scores(decoded_BCHW, known, decoded_BCHW)["own_change_outside_truth"] == 0


def test_the_attention_of_foi_is_scored_by_threshold():
    truth_B1HW = torch.zeros(1, 1, 4, 4)
    truth_B1HW[..., :2, :2] = 1
    map_B1HW = torch.zeros(1, 1, 4, 4)
    map_B1HW[..., :2, :4] = 0.55
    map_B1HW[..., 0, 0] = 0.65
    found = foi_study.attention_scores(map_B1HW, truth_B1HW)
    assert found["iou at 0.5"] == pytest.approx(4 / 8) and found["iou at 0.6"] == pytest.approx(1 / 4)
    assert found["iou at 0.7"] == 0 and found["highest place inside"] == 1


def test_foi_runs(known, tiny_edit_config, tiny_ip2p_dir, monkeypatch):
    monkeypatch.setattr(foi_study, "VARIANTS", {name: foi_study.VARIANTS[name] for name in ("plain", "FoI")})
    settings = {"size": 64, "num_inference_steps": 4, "guidance_scale": 2.0, "attention_resolution": 8}
    generator = InstructPix2PixConfig(path=str(tiny_ip2p_dir), **settings)
    found = foi_study.study(replace(tiny_edit_config, generator=generator), known)
    assert list(found["attention"]) == ["first step", "first 2 steps", "first 4 steps"]
    rows = ["the source, encoded and decoded", "plain", "FoI, attention", "FoI, learned", "FoI, truth"]
    assert list(found["edits"]) == rows
    assert found["edits"]["plain"] != found["edits"]["FoI, truth"]


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
def test_two_instructions_run(edits, together, tiny_ip2p_dir):
    config = InstructPix2PixConfig(
        path=str(tiny_ip2p_dir), size=64, num_inference_steps=2, guidance_scale=2.0, attention_resolution=8
    )
    generator = load_generator(replace(config, **several_study.FOI))
    made_BCHW = several_study.repaint(generator, edits, together)
    assert made_BCHW.shape == edits.first.source_BCHW.shape and torch.isfinite(made_BCHW).all()
    assert not torch.equal(made_BCHW, several_study.repaint(generator, edits, not together))


def test_the_landscape_runs(clip, tiny_inpaint_dir):
    generator = load_generator(StableDiffusionConfig(path=str(tiny_inpaint_dir), size=32, num_inference_steps=1))
    removals = known_edits.known_edits("validation", 0, range(3), ("remove",))
    found = landscape.measure(clip, generator, removals, LossConfig())
    assert set(found) == {"random_hard", "everything", "true region, 6 px wider"}
    for row in found.values():
        assert row["loss"]["empty"]["clip_structure"] == row["loss"]["empty"]["area"] == 0
        assert row["loss"]["everything"]["area"] == 1
        assert 0 < row["loss"]["truth"]["area"] == pytest.approx(row["loss"]["elsewhere"]["area"])
        assert all(0 <= scores["iou_of_largest"] <= 1 for scores in row["gradient"].values())


@pytest.fixture
def generator(tiny_inpaint_dir):
    return load_generator(
        StableDiffusionConfig(path=str(tiny_inpaint_dir), size=64, num_inference_steps=2, masked_image="latent")
    )


def test_the_gradient_paths_run(clip, generator, known, monkeypatch):
    monkeypatch.setattr(gradient_paths, "SOFT", (0.5,))
    found = gradient_paths.measure(clip, generator, known, LossConfig())
    assert len(found) == 7
    for row in found.values():
        for scores in row.values():
            assert -1 <= scores["cosine_of_seeds"] <= 1 and scores["size"] > 0 and 0 <= scores["iou_of_largest"] <= 1


def test_two_composites_differ_only_in_the_exact_or_decoded_source(generator, known):
    mask = torch.zeros_like(known.truth_B1HW)
    found = gradient_paths.paths(generator)
    assert torch.equal(found["composite, everything"](known, mask, [1, 2, 3]), known.source_BCHW)
    decoded = generator.decode(generator.source_latents(known.source_BCHW))
    assert torch.equal(found["composite, everything, decoded source"](known, mask, [1, 2, 3]), decoded)
    blend = found["latent blend, everything"](known, mask, [1, 2, 3])
    torch.testing.assert_close(blend, decoded, rtol=0, atol=1e-5)


def test_the_full_gradient_reaches_distant_pixels_and_the_composites_does_not(generator, known):
    """Derivative of distant pixels with respect to one mask cell: the composite depends on that cell only locally."""
    mask_BN = torch.full((3, 4), 0.5, requires_grad=True)
    mask_B1HW = masks.upsample(mask_BN, 2, (64, 64))
    found = gradient_paths.paths(generator)
    reach = {}
    for name in ("composite, everything", "full, the soft mask (the paper)"):
        lower_right = found[name](known, mask_B1HW, [1, 2, 3])[:, :, 40:, 40:].sum()
        (slope_BN,) = torch.autograd.grad(lower_right, mask_BN, retain_graph=True)
        reach[name] = slope_BN[:, 0].abs().max()
    assert reach["composite, everything"] == 0 < reach["full, the soft mask (the paper)"]


def test_a_linear_class_is_found_in_features_and_not_in_noise():
    torch.manual_seed(0)
    features_KD = torch.randn(600, 6)
    class_K = features_KD[:, :3].argmax(1)
    predicted_K = patch_probe.probe(features_KD[:400], class_K[:400], features_KD[400:])
    assert (predicted_K == class_K[400:]).float().mean() > 0.9
    from_noise_K = patch_probe.probe(features_KD[:400, 3:], class_K[:400], features_KD[400:, 3:])
    assert (from_noise_K == class_K[400:]).float().mean() < 0.5


def test_the_probe_has_one_row_for_each_layer(clip):
    scenes = [sample("train", 0, i).source for i in range(24)]
    objects = patch_probe.objects_in(scenes, clip)
    count = sum(len(scene.things) for scene in scenes)
    assert len(objects.by_layer) == len(clip.model.visual.transformer.resblocks)
    assert all(len(layer_KD) == count for layer_KD in objects.by_layer)
    found = patch_probe.measure(clip, scenes[:16], scenes[16:])
    assert list(found)[-1] == "last, projected" and all(0 <= v <= 1 for row in found.values() for v in row.values())


def test_places_are_where_the_pictures_differ():
    known = change_map_study.known_places(6)
    assert {case.placement for case in known} == {"requested", "elsewhere", "both"}
    for case in known:
        changed_HW = np.abs(np.asarray(case.source, int) - np.asarray(case.result)).max(-1) > 60
        assert binary_dilation(case.landed_HW, np.ones((3, 3)))[changed_HW].all() and changed_HW[case.landed_HW].any()
        if case.placement == "elsewhere":
            assert not (case.landed_HW & case.truth_HW).any()
        elif case.placement == "both":
            assert case.landed_HW.sum() > case.truth_HW.sum() and case.landed_HW[case.truth_HW].all()


def test_disturbances_do_what_they_say():
    picture = Image.fromarray(np.random.default_rng(0).integers(60, 200, (64, 64, 3), np.uint8))
    moved = {name: np.asarray(disturb(picture), int) for name, disturb in change_map_study.DISTURBANCES.items()}
    assert np.array_equal(moved["shift 3 px"][3:, 3:], np.asarray(picture)[:-3, :-3])
    assert 10 < np.abs(moved["drift"] - np.asarray(picture)).max() < 0.17 * 255
    noise = [np.abs(moved[f"JPEG {quality}"] - np.asarray(picture)).mean() for quality in (95, 85, 75)]
    assert 0 < noise[0] < noise[1] < noise[2]


def test_agreement_counts_what_is_missed_and_what_is_not_there():
    known = [case for case in change_map_study.known_places(4) if case.operation != "background"]
    blind = change_map_study.agreement(known, lambda p: p, lambda source, result: np.zeros((64, 64), bool))
    assert (
        blind["nothing_found"] == 1 and blind["outside"] is None and blind["false_alarm"] == 0 and blind["map_iou"] == 0
    )
    shift = change_map_study.DISTURBANCES["shift 3 px"]
    found = change_map_study.agreement(known, shift, change_map_study.change_map)
    plain = change_map_study.agreement(known, shift, change_map_study.pixel_difference)
    assert found["map_iou"] > plain["map_iou"] + 0.2 and (found["false_alarm"], plain["false_alarm"]) == (0, 1)


def test_the_documented_table_is_the_stored_result():
    stored = json.loads(Path("docs/study/change_map.json").read_text())["objects"]
    text = Path("docs/evaluation.md").read_text()
    for name, ours in stored["change map"].items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} | ") and "/" in line]
        cells = [[float(value) for value in cell.split("/")] for cell in line.strip("| ").split(" | ")[1:]]
        plain = stored["pixel difference"][name]
        for column, cell in zip(("map_iou", "iou", "outside", "position", "size", "false_alarm"), cells, strict=True):
            assert cell == pytest.approx([ours[column], plain[column]], abs=6e-4), (name, column)
