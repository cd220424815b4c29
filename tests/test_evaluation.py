"""Evaluation from end to end: every case is scored or listed as failed; wrong configurations are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from data_prep.microworld.pack import pack
from regionedit.command_line import load_config
from regionedit.config import EditConfig, EvaluateConfig, RegionConfig
from regionedit.editor import Editor
from regionedit.evaluation import BENCHMARKS, METRICS
from regionedit.evaluation.baselines import BASELINES, best_validation_threshold, marked_by_truth
from regionedit.evaluation.editing import own_noise
from regionedit.evaluation.run import evaluate
from regionedit.microworld.renderer import coverage
from regionedit.models import Models
from tests.shards import write_shards

COUNT = 4
SECOND = "test-000000001"
QUIET = Console(quiet=True)


def pack_cases(folder: Path, count: int) -> Path:
    pack("test", count, folder, workers=1, seed=0, shard_size=100)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_edit_config, tiny_judge_dir, tiny_dino_dir):
    """A whole evaluation in small."""
    folder = tmp_path_factory.mktemp("evaluation")
    return EvaluateConfig(
        data=str(pack_cases(folder / "benchmark", COUNT)),
        out=str(folder / "out"),
        batch=4,
        device="cpu",
        encoders=tiny_edit_config.encoders,
        generator=replace(tiny_edit_config.generator, num_inference_steps=1, guidance_scale=1.0),
        region=tiny_edit_config.region,
        validation=str(write_shards(folder / "validation", (6,), truth=True)),
        judge=f"local-dir:{tiny_judge_dir}",
        dino=str(tiny_dino_dir),
    )


@pytest.fixture(scope="module")
def finished(config):
    """A complete evaluation with every baseline; (config, summary, printed output)."""
    config = replace(config, baselines=list(BASELINES), edited_baselines=["truth", "clip_similarity"])
    console = Console(record=True, width=140, file=open("/dev/null", "w"))
    return config, evaluate(config, console), console.export_text()


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


def test_every_case_has_a_row_and_the_summary_its_shape(finished):
    config, summary, printed = finished
    rows = pd.read_parquet(f"{config.out}/cases.parquet")
    assert finished[1]["protocol"]["captions"] == "given"  # to an in-painter, which reads them
    assert len(rows) == COUNT and rows["failed"].isna().all()
    saved = json.loads(open(f"{config.out}/summary.json").read())
    assert saved == json.loads(json.dumps(summary))
    assert {"benchmark", "protocol", "n", "failed", "metrics", "by"} <= set(saved)
    assert {"region_iou", "region_iou_pixel", "pointing", "outside_change", "edit_success"} <= set(saved["metrics"])
    assert all({"mean", "low", "high"} <= set(score) for score in saved["metrics"].values())
    assert set(saved["baselines"]) == set(BASELINES) and saved["systems"] == {}
    assert {"operation", "seen", "objects"} <= set(saved["by"])
    assert saved["metrics"]["outside_change"]["mean"] == 0
    assert saved["protocol"]["grid"] == 4
    assert "true region" in printed and "random" in printed
    assert Image.open(f"{config.out}/examples.png").width > 5 * 128


def test_the_true_region_scores_perfectly_and_only_requested_baselines_have_pictures(finished):
    _, summary, _ = finished
    truth = summary["baselines"]["truth"]["metrics"]
    assert truth["region_iou"]["mean"] == truth["pointing"]["mean"] == 1
    edited = {name for name, block in summary["baselines"].items() if "l1" in block["metrics"]}
    assert edited == {"truth", "clip_similarity"}
    assert "chosen on validation" in summary["baselines"]["clip_similarity"]["note"]


def test_finished_pictures_are_not_redone_and_other_settings_redo_them(finished, tmp_path, monkeypatch):
    config = replace(finished[0], baselines=[], edited_baselines=[])
    edited = []
    original = Editor.edit_batch
    monkeypatch.setattr(Editor, "edit_batch", lambda self, r, done: edited.extend(r) or original(self, r, done))
    again = evaluate(config, QUIET)
    assert not edited
    assert again["metrics"] == finished[1]["metrics"]
    other = replace(config, region=replace(config.region, threshold=0.4), limit=2, out=str(tmp_path))
    evaluate(other, QUIET)
    assert len(edited) == 2


def test_scores_come_from_the_saved_pictures(finished, tmp_path):
    """A folder of pictures named by case id can be scored; a missing and a broken picture are listed, not dropped."""
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
    summary = evaluate(theirs, QUIET)
    assert summary["n"] == COUNT and summary["failed"] == 2
    assert summary["metrics"]["edit_success"]["n"] == COUNT - 2
    assert "region_iou" not in summary["metrics"]
    rows = pd.read_parquet(tmp_path / "scored" / "cases.parquet")
    assert rows["failed"].notna().tolist()[:3] == [True, True, False] and rows["l1"].iloc[3:].max() == 0


def test_the_output_folder_of_another_run_scores_the_same(finished, tmp_path):
    config = replace(finished[0], pictures=finished[0].out, out=str(tmp_path), baselines=[], edited_baselines=[])
    assert evaluate(config, QUIET)["metrics"] == finished[1]["metrics"]


def test_regions_only_loads_no_generator(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Models, "generator", property(lambda self: pytest.fail("the generator was loaded")))
    quick = replace(config, regions_only=True, out=str(tmp_path), baselines=["everything"], limit=4)
    summary = evaluate(quick, QUIET)
    assert "region_iou" in summary["metrics"] and "l1" not in summary["metrics"]
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"benchmark": "imagenet"}, "benchmark"),
        ({"baselines": ["luck"]}, "baselines"),
        ({"edited_baselines": ["truth"]}, "edited_baselines"),
        ({"pictures": "/nowhere"}, "pictures"),
        ({"ceiling": "/nowhere.json"}, "ceiling"),
        ({"expected": {"clip": 1.0}}, r"expected\.clip"),
        ({"data": "/nowhere"}, "data"),
        ({"judge": "local-dir:/nowhere"}, "judge"),
        ({"dino": "/nowhere"}, "dino"),
        ({"region": RegionConfig(checkpoint="/nowhere")}, "region.checkpoint"),
        ({"baselines": ["clip_similarity"], "validation": None, "regions_only": True}, "validation"),
        ({"systems": {"theirs": "nowhere.yaml"}}, r"systems\.theirs"),
        ({"systems": {"theirs": "configs/edit_sd15.yaml --generator.gidance 2"}}, r"systems\.theirs"),
        ({"systems": {"learned": "configs/edit_sd15.yaml"}}, r"systems\.learned"),
    ],
)
def test_a_wrong_configuration_is_named(change, named, config, tmp_path):
    with pytest.raises(ValueError, match=f"^{named}: "):
        evaluate(replace(config, out=str(tmp_path / "out"), **change), QUIET)
    assert not (tmp_path / "out").exists()


def test_the_threshold_of_a_baseline_needs_truth(config, tmp_path):
    editor = Editor(config)
    source = editor.models.mask_source("clip_similarity", editor.config)
    threshold = best_validation_threshold(source, 4, config, ("recolour",))
    assert 0 < threshold < 1
    without = write_shards(tmp_path / "shards", (3,))
    with pytest.raises(ValueError, match="^validation: "):
        best_validation_threshold(source, 4, replace(config, validation=str(without)), ("recolour",))


def test_a_mask_source_that_reads_marks_gets_them_from_the_truth(config):
    """`sam` gets a click on the named object in the source, `drawn` gets the true region, other sources get nothing."""
    cases = [case for case in BENCHMARKS["microworld"](config.data, 0, None) if case.truth.named is not None]
    assert cases and all(case.object_mask for case in cases)
    for case in [*cases, replace(cases[0], object_mask=None)]:
        clicked = marked_by_truth("sam", case, case.request)
        ((x, y),) = clicked.click
        assert np.asarray(case.object_mask or case.truth_mask)[y, x] > 127 and clicked.mask is None
        assert marked_by_truth("learned + sam - drawn", case, case.request) == clicked
        drawn = marked_by_truth("drawn", case, case.request)
        assert drawn.click is None and np.array_equal(np.asarray(drawn.mask) > 0, np.asarray(case.truth_mask) > 0)
        assert marked_by_truth("learned", case, case.request) == case.request
        own = replace(case.request, box=(0, 0, 9, 9))
        assert marked_by_truth("sam", case, own) == own
    for case in cases:
        thing = coverage(case.truth.source)[case.truth.named] > 0.5
        assert np.array_equal(np.asarray(case.object_mask) > 0, thing)


def test_another_systems_configuration_edits_in_a_row_of_its_own(config, config_file, tmp_path):
    alone = replace(config, baselines=[], edited_baselines=[], validation=None, limit=4, out=str(tmp_path / "out"))
    asked = replace(alone, systems={"theirs": f"{config_file} --generator.guidance_scale 2"}, systems_limit=3)
    both = evaluate(asked, QUIET)
    own, theirs = both["systems"]["learned"], both["systems"]["theirs"]
    assert theirs["n"] == own["n"] == 3 and both["n"] == 4 and theirs["failed"] == 0 and theirs["seconds"] > 0
    assert theirs["metrics"]["l1"]["mean"] != own["metrics"]["l1"]["mean"]
    first = pd.read_parquet(tmp_path / "out" / "cases.parquet").iloc[:3]
    for name, score in own["metrics"].items():
        if not METRICS[name].headline:
            assert score["mean"] == pytest.approx(first[name].mean(), rel=1e-6)
    made = Editor.from_config(load_config(EditConfig, config_file, ["--generator.guidance_scale", "2"]))
    (case,) = BENCHMARKS["microworld"](alone.data, 1, None)
    saved = Image.open(tmp_path / "out" / "systems" / "theirs" / "pictures" / f"{case.id}.png")
    again = np.asarray(made.edit(own_noise(case.request)).image, int)
    assert np.abs(np.asarray(saved, int) - again).max() <= 1  # edited in another batch
    rows = pd.read_parquet(tmp_path / "out" / "systems" / "theirs" / "cases.parquet")
    assert rows["seconds"].mean() == pytest.approx(theirs["seconds"]) and (rows["seconds"] > 0).all()
    assert "theirs: edited" in (tmp_path / "out" / "report.html").read_text()
    assert 'alt="theirs"' in (tmp_path / "out" / "gallery.html").read_text()
