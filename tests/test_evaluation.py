"""Evaluation: every metric on two hand-made cases, every case scored or listed, one run from end to end."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from data_prep.microworld.pack import pack
from regionedit.command_line import load_config
from regionedit.config import EditConfig, EncodersConfig, EvaluateConfig, GeneratorConfig, RegionConfig
from regionedit.editor import Editor
from regionedit.evaluation import BENCHMARKS, METRICS
from regionedit.evaluation.baselines import (
    BASELINES,
    best_validation_threshold,
    marked_by_truth,
    with_chance_box,
)
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import RegionIoUBest
from regionedit.evaluation.run import evaluate, make_metrics
from regionedit.evaluation.scoring import interval, summarise
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import coverage, render
from regionedit.microworld.scene import Background, Scene, Thing
from regionedit.microworld.truth import truth_mask
from regionedit.records import Captions, EditCase, EditRequest
from tests.shards import write_shards

CIRCLE = Thing("circle", "red", 16, 16, 10)
SQUARE = Thing("square", "blue", 48, 48, 10)
GROUND = Background("white", "plain")
COUNT = 8
SECOND = "test-000000001"


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render([scene])[0])


def pack_cases(folder: Path, count: int) -> Path:
    pack("test", count, folder, workers=1, seed=0, shard_size=100)
    return folder


def make_case(edit: Edit) -> EditCase:
    captions = Captions(edit.source_caption, edit.target_caption)
    return EditCase(
        id=edit.operation,
        request=EditRequest(picture(edit.source), edit.instruction, captions=captions, id=edit.operation),
        operation=edit.operation,
        truth_mask=Image.fromarray((truth_mask(edit) * 255).round().astype(np.uint8)),
        truth_image=picture(edit.target),
        truth=edit,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_clip_dir, tiny_judge_dir, tiny_t5_dir, tiny_inpaint_dir, tiny_dino_dir, tiny_sam_dir):
    from regionedit.region_predictor import RegionPredictor

    folder = tmp_path_factory.mktemp("evaluation")
    torch.manual_seed(0)
    RegionPredictor(dim=32, grid=4, heads=2).save_pretrained(folder / "region_predictor")
    return EvaluateConfig(
        data=str(pack_cases(folder / "benchmark", COUNT)),
        out=str(folder / "out"),
        batch=4,
        device="cpu",
        encoders=EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)),
        generator=GeneratorConfig(path=str(tiny_inpaint_dir), size=32, steps=1, guidance=1.0),
        region=RegionConfig(checkpoint=str(folder / "region_predictor"), sam=str(tiny_sam_dir)),
        validation=str(write_shards(folder / "validation", (6,), truth=True)),
        judge=f"local-dir:{tiny_judge_dir}",
        dino=str(tiny_dino_dir),
    )


@pytest.fixture(scope="module")
def finished(config):
    """One whole evaluation with every baseline; (config, summary, printed)."""
    config = replace(config, baselines=list(BASELINES), edited_baselines=["truth", "clip_similarity"])
    console = Console(record=True, width=140, file=open("/dev/null", "w"))
    return config, evaluate(config, console), console.export_text()


# ---------------------------------------------------------------------------------------------------- metrics

REMOVE = make_case(
    Edit(
        operation="remove",
        instruction="remove the red circle",
        source_caption="a red circle and a blue square on a plain white background",
        target_caption="a blue square on a plain white background",
        source=Scene(GROUND, (CIRCLE, SQUARE)),
        target=Scene(GROUND, (SQUARE,)),
        named=0,
    )
)
ADD = make_case(
    Edit(
        operation="add",
        instruction="add a green square right of the red circle",
        source_caption="a red circle on a plain white background",
        target_caption="a red circle and a green square right of the red circle on a plain white background",
        source=Scene(GROUND, (CIRCLE,)),
        target=Scene(GROUND, (CIRCLE, Thing("square", "green", 48, 16, 10))),
        added=1,
        anchor=0,
        relation="right of",
    )
)


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    out = np.zeros((64, 64), np.float32)
    out[y0:y1, x0:x1] = 1
    return out


# Remove: the region is the left upper quarter (4 of 16 cells, all of which the circle of radius 10 covers by more than
# a quarter) and the picture came back as the truth. Add: the right upper quarter, alike, and the picture unchanged.
TWO = (
    Outcome(REMOVE, REMOVE.truth_image, box(0, 0, 32, 32), box(0, 0, 32, 32)),
    Outcome(ADD, ADD.request.image, box(32, 0, 64, 32), box(32, 0, 64, 32)),
)
CIRCLE_PIXELS = int((truth_mask(REMOVE.truth) > 0.5).sum())
ADDED_PIXELS = int((truth_mask(ADD.truth) > 0.5).sum())
ADDED_L1 = np.abs(np.asarray(ADD.truth_image, float) - np.asarray(ADD.request.image, float)).mean() / 255
NAN = math.nan
EXPECTED = {
    "region_iou": (1.0, 1.0),
    "region_iou_best": (1.0, NAN),
    "region_iou_pixel": (CIRCLE_PIXELS / 1024, ADDED_PIXELS / 1024),
    "mask_iou": (CIRCLE_PIXELS / 1024, ADDED_PIXELS / 1024),
    "region_precision": (1.0, 1.0),
    "region_recall": (1.0, 1.0),
    "region_area": (0.25, 0.25),
    "pointing": (1.0, NAN),
    "pointing_chance": (0.5, NAN),
    "add_inside": (NAN, 1.0),
    "add_size_ratio": (NAN, 1024 / ADDED_PIXELS),
    "add_present": (NAN, 0.0),
    "background_iou": (NAN, NAN),
    "edit_success": (1.0, 0.0),
    "outside_change": (0.0, 0.0),
    "outside_truth_change": (0.0, 0.0),
    "l1": (0.0, ADDED_L1),
    "clip_image": (1.0, None),
    "clip_text": (None, None),
    "clip_direction": (None, 0.0),
    "dino": (1.0, None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_microworlds_metrics_on_two_cases(name, config):
    """None stands for a value that only the (random) judge knows: finite and a cosine."""
    metric = METRICS[name].from_config(replace(config, grid=4))
    metric.update(TWO[:1])
    metric.update(TWO[1:])
    values = metric.values().tolist()
    for value, expected in zip(values, EXPECTED[name], strict=True):
        if expected is None:
            assert -1 <= value <= 1
        else:
            assert value == pytest.approx(expected, abs=1e-5, nan_ok=True)
    if not all(math.isnan(value) for value in values):
        assert metric.compute() == pytest.approx(np.nanmean(values))


def test_a_region_without_a_picture_has_no_picture_scores(config):
    region = [replace(TWO[0], picture=None)]
    for name, kind in METRICS.items():
        metric = kind.from_config(replace(config, grid=4))
        metric.update(region)
        assert kind.of_region or metric.values().isnan().all(), name


def test_outside_change_is_seen_where_neither_region_reaches(config):
    spoilt = np.asarray(REMOVE.truth_image).copy()
    spoilt[63, 0] = 255 - spoilt[63, 0]
    outcome = replace(TWO[0], picture=Image.fromarray(spoilt))
    metric = METRICS["outside_change"].from_config(config)
    metric.update([outcome])
    change = np.abs(np.asarray(outcome.picture, float) - np.asarray(REMOVE.request.image, float)).mean(-1) / 255
    outside = (outcome.mask == 0) & (outcome.truth == 0)
    assert metric.compute() == pytest.approx(change[outside].mean(), rel=1e-5)
    assert metric.compute() > 0


def test_the_sources_own_grid_is_preferred_to_means(config):
    patches = np.zeros((4, 4), np.float32)
    patches[0, 0] = 1
    metric = METRICS["region_area"].from_config(replace(config, grid=4))
    metric.update([replace(TWO[0], patches=patches)])
    assert metric.compute() == pytest.approx(1 / 16)


def test_pointing_of_a_flat_map_is_chance():
    flat = np.full((64, 64), 0.3, np.float32)
    assert METRICS["pointing"].point(flat, coverage(REMOVE.truth.source), 0) == pytest.approx(0.5)
    towards_square = box(32, 32, 64, 64)
    assert METRICS["pointing"].point(towards_square, coverage(REMOVE.truth.source), 0) == 0


def test_background_region_is_compared_with_all_but_the_things(config):
    edit = replace(REMOVE.truth, operation="background", named=None, target=Scene(Background("black", "plain"), ()))
    case = replace(REMOVE, operation="background", truth=edit)
    metric = METRICS["background_iou"].from_config(config)
    rest = (coverage(edit.source).max(0) < 0.5).astype(np.float32)
    metric.update([Outcome(case, None, rest, rest), Outcome(case, None, rest, np.ones_like(rest))])
    assert metric.values().tolist() == pytest.approx([1.0, rest.mean()])


def test_best_threshold_is_one_for_the_whole_set():
    metric = RegionIoUBest(4)
    low, high = TWO[0].probability * 0.2, TWO[0].probability * 0.4
    metric.update([replace(TWO[0], probability=low), replace(TWO[0], probability=np.maximum(high, 0.1))])
    assert 0.1 <= metric.best_threshold() < 0.2
    assert metric.values().tolist() == [1.0, 1.0]


def test_interval():
    rng = np.random.default_rng(0)
    found = interval(rng.normal(5, 1, 400))
    assert found["low"] < found["mean"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.2)
    assert interval(np.array([0.5]))["low"] is None
    assert interval(np.ones(3)) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 3}


def test_headline_metrics_are_taken_over_the_headline_operations_alone():
    metrics = {name: METRICS[name] for name in ("region_iou", "edit_success")}
    rows = pd.DataFrame(
        {
            "operation": ["remove", "remove", "add", "add"],
            "seen": ["seen", "unseen", "seen", "seen"],
            "failed": [None, None, None, "no room"],
            "note": [None, "64x64, the source has 32x32", None, None],
            "region_iou": [0.8, 0.6, 0.1, NAN],
            "edit_success": [1.0, 1.0, 0.0, NAN],
        }
    )
    found = summarise(rows, metrics, ["seen"], ("remove",))
    assert found["n"] == 4 and found["failed"] == found["other_size"] == 1
    assert found["metrics"]["region_iou"]["mean"] == pytest.approx(0.7)
    assert found["metrics"]["edit_success"]["mean"] == pytest.approx(2 / 3)
    assert found["by"]["operation"]["add"]["metrics"]["region_iou"]["mean"] == pytest.approx(0.1)
    assert found["by"]["seen"]["seen"]["metrics"]["region_iou"]["mean"] == pytest.approx(0.8)


# ---------------------------------------------------------------------------------------------------- benchmarks


def test_the_microworld_yields_every_case_once_and_can_be_read_again(config):
    cases = BENCHMARKS["microworld"](config.data)
    ids = [case.id for case in cases]
    assert len(ids) == len(set(ids)) == len(cases) == COUNT
    assert [case.id for case in cases] == ids
    assert set(cases.metrics) <= set(METRICS)
    assert len(BENCHMARKS["microworld"](config.data, limit=3)) == 3


@pytest.mark.parametrize("spoil", ["no folder", "no picture", "not json", "no field"])
def test_a_damaged_benchmark_is_named(spoil, tmp_path):
    folder = tmp_path / "b" if spoil == "no folder" else pack_cases(tmp_path / "b", 2)
    if spoil == "no picture":
        (folder / "pictures" / f"{SECOND}.png").unlink()
    elif spoil == "not json":
        (folder / "cases.jsonl").write_text("{\n")
    elif spoil == "no field":
        (folder / "cases.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(ValueError, match="^data: .*cases.jsonl"):
        list(BENCHMARKS["microworld"](folder))


def test_the_chance_box_does_not_move_and_covers_a_ninth():
    first, second = with_chance_box(REMOVE).mask, with_chance_box(REMOVE).mask
    assert first.tobytes() == second.tobytes()
    assert np.asarray(first).mean() / 255 == pytest.approx(1 / 9, abs=0.01)


# ---------------------------------------------------------------------------------------------------- the whole run


def test_every_case_has_a_row_and_the_summary_its_shape(finished):
    config, summary, printed = finished
    rows = pd.read_parquet(f"{config.out}/cases.parquet")
    assert len(rows) == COUNT and rows["failed"].isna().all()
    saved = json.loads(open(f"{config.out}/summary.json").read())
    assert saved == json.loads(json.dumps(summary))
    assert {"benchmark", "protocol", "n", "failed", "metrics", "by"} <= set(saved)
    assert {"region_iou", "region_iou_pixel", "pointing", "outside_change", "edit_success"} <= set(saved["metrics"])
    assert all({"mean", "low", "high"} <= set(score) for score in saved["metrics"].values())
    assert set(saved["baselines"]) == set(BASELINES)
    assert {"operation", "seen", "objects"} <= set(saved["by"])
    assert saved["metrics"]["outside_change"]["mean"] == 0
    assert saved["protocol"]["grid"] == 4
    assert "true region" in printed and "random" in printed
    assert Image.open(f"{config.out}/examples.png").width > 5 * 128


def test_the_truth_is_a_perfect_region_and_the_only_rivals_with_pictures_are_those_asked_for(finished):
    _, summary, _ = finished
    truth = summary["baselines"]["truth"]["metrics"]
    assert truth["region_iou"]["mean"] == truth["pointing"]["mean"] == 1
    edited = {name for name, block in summary["baselines"].items() if "l1" in block["metrics"]}
    assert edited == {"truth", "clip_similarity"}
    assert "chosen on validation" in summary["baselines"]["clip_similarity"]["note"]


def test_finished_pictures_are_not_redone_and_other_settings_redo_them(finished, tmp_path, monkeypatch):
    config = replace(finished[0], baselines=[], edited_baselines=[])
    from regionedit.editor import Editor

    edited = []
    original = Editor.edit_batch
    monkeypatch.setattr(Editor, "edit_batch", lambda self, r: edited.extend(r) or original(self, r))
    again = evaluate(config, Console(quiet=True))
    assert not edited
    assert again["metrics"] == finished[1]["metrics"]
    other = replace(config, region=replace(config.region, threshold=0.4), limit=2, out=str(tmp_path))
    evaluate(other, Console(quiet=True))
    assert len(edited) == 2


def test_scores_come_from_the_saved_pictures(finished, tmp_path):
    """Pictures named by case id can be scored alone; a missing and a broken one are listed, not dropped."""
    config = finished[0]
    pictures = tmp_path / "pictures of somebody"
    pictures.mkdir()
    cases = list(BENCHMARKS["microworld"](config.data))
    for case in cases:
        case.truth_image.save(pictures / f"{case.id}.png")
    (pictures / f"{cases[0].id}.png").unlink()
    (pictures / f"{cases[1].id}.png").write_bytes(b"not a picture")
    cases[2].truth_image.resize((128, 128)).save(pictures / f"{cases[2].id}.png")
    theirs = replace(config, pictures=str(pictures), out=str(tmp_path / "scored"), baselines=[], edited_baselines=[])
    summary = evaluate(theirs, Console(quiet=True))
    assert summary["n"] == COUNT and summary["failed"] == 2
    assert summary["metrics"]["edit_success"]["n"] == COUNT - 2
    assert "region_iou" not in summary["metrics"]
    rows = pd.read_parquet(tmp_path / "scored" / "cases.parquet")
    assert rows["failed"].notna().sum() == 2
    assert rows["l1"].iloc[3:].max() == 0


def test_the_out_of_another_run_scores_the_same(finished, tmp_path):
    config = replace(finished[0], pictures=finished[0].out, out=str(tmp_path), baselines=[], edited_baselines=[])
    assert evaluate(config, Console(quiet=True))["metrics"] == finished[1]["metrics"]


def test_regions_only_loads_no_generator(config, tmp_path, monkeypatch):
    from regionedit.models import Models

    monkeypatch.setattr(Models, "generator", property(lambda self: pytest.fail("the generator was loaded")))
    quick = replace(config, regions_only=True, out=str(tmp_path), baselines=["everything"], limit=4)
    summary = evaluate(quick, Console(quiet=True))
    assert "region_iou" in summary["metrics"] and "l1" not in summary["metrics"]
    assert not (tmp_path / "pictures").exists()


def test_a_failed_edit_is_a_row_with_its_reason(config, tmp_path, monkeypatch):
    from regionedit.editor import Editor
    from regionedit.records import EditFailure

    def fail_one(self, requests, original=Editor.edit_batch):
        return [EditFailure(r.id, "no luck") if r.id == SECOND else original(self, [r])[0] for r in requests]

    monkeypatch.setattr(Editor, "edit_batch", fail_one)
    summary = evaluate(replace(config, out=str(tmp_path), limit=3), Console(quiet=True))
    rows = pd.read_parquet(tmp_path / "cases.parquet").set_index("id")
    assert len(rows) == 3 and rows["failed"].dropna().to_dict() == {SECOND: "no luck"}
    assert summary["failed"] == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"benchmark": "imagenet"}, "benchmark"),
        ({"baselines": ["luck"]}, "baselines"),
        ({"edited_baselines": ["truth"]}, "edited_baselines"),
        ({"pictures": "/nowhere"}, "pictures"),
        ({"ceiling": "/nowhere.json"}, "ceiling"),
        ({"data": "/nowhere"}, "data"),
        ({"judge": "local-dir:/nowhere"}, "judge"),
        ({"dino": "/nowhere"}, "dino"),
        ({"region": RegionConfig(checkpoint="/nowhere")}, "region.checkpoint"),
        ({"baselines": ["clip_similarity"], "validation": None, "regions_only": True}, "validation"),
    ],
)
def test_a_wrong_configuration_is_named(change, named, config, tmp_path):
    with pytest.raises(ValueError, match=f"^{named}: "):
        evaluate(replace(config, out=str(tmp_path / "out"), **change), Console(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["clip_similarity", "difference"])
def test_the_threshold_of_a_rival_needs_truth(config, tmp_path, name):
    editor = Editor(config)
    source = editor.models.mask_source(name)
    threshold = best_validation_threshold(source, 4, config, ("recolour",))
    assert 0 < threshold < 1
    without = write_shards(tmp_path / "shards", (3,))
    with pytest.raises(ValueError, match="^validation: "):
        best_validation_threshold(source, 4, replace(config, validation=str(without)), ("recolour",))


def test_metrics_of_pictures_are_made_only_for_pictures(config):
    assert all(METRICS[name].of_region for name in make_metrics(tuple(METRICS), config, edited=False))


def test_a_mask_source_that_reads_marks_gets_them_from_the_truth(config):
    """A click on the named thing, not where only its successor will be; a drawn region for `drawn`; else nothing."""
    cases = list(BENCHMARKS["microworld"](config.data, 0, None))
    assert all(case.thing_mask for case in cases)
    for case in [*cases, replace(cases[0], thing_mask=None)]:
        clicked = marked_by_truth("sam", case, case.request)
        ((x, y),) = clicked.click
        assert np.asarray(case.thing_mask or case.truth_mask)[y, x] > 127 and clicked.mask is None
        assert marked_by_truth("learned + sam - drawn", case, case.request) == clicked
        drawn = marked_by_truth("drawn", case, case.request)
        assert drawn.click is None and np.array_equal(np.asarray(drawn.mask) > 0, np.asarray(case.truth_mask) > 0)
        assert marked_by_truth("learned", case, case.request) == case.request
        own = replace(case.request, box=(0, 0, 9, 9))
        assert marked_by_truth("sam", case, own) == own
    for case in cases:
        thing = coverage(case.truth.source)[case.truth.named] > 0.5
        assert np.array_equal(np.asarray(case.thing_mask) > 0, thing)


def test_another_systems_configuration_edits_in_a_row_of_its_own(config, config_file, tmp_path):
    alone = replace(config, baselines=[], edited_baselines=[], validation=None, limit=4, out=str(tmp_path / "out"))
    asked = replace(alone, systems={"theirs": f"{config_file} --generator.guidance 2"}, systems_limit=3)
    both = evaluate(asked, Console(quiet=True))
    own, theirs = both["systems"]["learned"], both["systems"]["theirs"]
    assert theirs["n"] == own["n"] == 3 and both["n"] == 4 and theirs["failed"] == 0 and theirs["seconds"] > 0
    assert theirs["metrics"]["l1"]["mean"] != own["metrics"]["l1"]["mean"]
    few = evaluate(replace(alone, limit=3, out=str(tmp_path / "few")), Console(quiet=True))
    assert few["systems"] == {}
    for name, score in few["metrics"].items():
        assert own["metrics"][name]["mean"] == pytest.approx(score["mean"], rel=1e-4, abs=1e-6)
    made = Editor.from_config(load_config(EditConfig, config_file, ["--generator.guidance", "2"]))
    (case,) = BENCHMARKS["microworld"](alone.data, 1, None)
    saved = Image.open(tmp_path / "out" / "systems" / "theirs" / "pictures" / f"{case.id}.png")
    again = np.asarray(made.edit(case.request).image, int)
    assert np.abs(np.asarray(saved, int) - again).max() <= 1  # another batch
    rows = pd.read_parquet(tmp_path / "out" / "systems" / "theirs" / "cases.parquet")
    assert rows["seconds"].mean() == pytest.approx(theirs["seconds"]) and (rows["seconds"] > 0).all()
    assert "theirs: edited" in (tmp_path / "out" / "report.html").read_text()
    assert 'alt="theirs"' in (tmp_path / "out" / "gallery.html").read_text()
    with pytest.raises(ValueError, match=r"^systems\.theirs: .*nowhere\.yaml"):
        evaluate(replace(alone, systems={"theirs": "nowhere.yaml"}), Console(quiet=True))
    with pytest.raises(ValueError, match=r"^systems\.theirs: .*gidance"):
        evaluate(replace(alone, systems={"theirs": f"{config_file} --generator.gidance 2"}), Console(quiet=True))
    with pytest.raises(ValueError, match=r"^systems\.learned: this row has the name already"):
        evaluate(replace(alone, systems={"learned": str(config_file)}), Console(quiet=True))
