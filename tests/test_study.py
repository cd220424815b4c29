"""The experiments' runner, and the study's tables and figures from small results of every kind."""

import json
import shutil
import subprocess
from pathlib import Path

import figures
import numpy as np
import pandas as pd
import pytest
import study
import study_edits
import study_report
import watch_regions

from regionedit.command_line import load_config
from regionedit.config import TrainConfig

EXPERIMENTS = sorted(Path("configs/study").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_variant_is_a_configuration(path):
    experiment = study.Experiment.read(path)
    assert experiment.question.endswith("?") and experiment.variants and experiment.seeds
    several = any("--generator.name" in overrides for overrides in experiment.variants.values())
    variants = experiment.variants.values() if several else [sum(experiment.variants.values(), [])]  # each is checked
    for overrides in variants:
        load_config(TrainConfig, experiment.base, [*experiment.overrides, *overrides])


def test_null_and_false_reach_the_command_line_as_they_are_spelt_and_a_missing_key_is_named(tmp_path):
    text = "{question: Why, base: b, seeds: [0], overrides: [--data.proposals, null], variants: {a: [--x, false, 1]}"
    (tmp_path / "e.yaml").write_text(text + ", beside: []}")
    experiment = study.Experiment.read(tmp_path / "e.yaml")
    assert experiment.overrides == ["--data.proposals", "null"] and experiment.variants["a"] == ["--x", "false", "1"]
    (tmp_path / "e.yaml").write_text(text + "}")
    with pytest.raises(ValueError, match="(?s)e.yaml.*beside.*required"):
        study.Experiment.read(tmp_path / "e.yaml")


def test_a_finished_run_is_not_repeated_and_an_unfinished_one_leaves_its_result(tmp_path, monkeypatch):
    experiment = study.Experiment(
        "name", "Why?", "base.yaml", ["--max_steps", "1"], {"a": ["--initial_region", "first-{seed}"]}, [3], []
    )
    calls = []

    def fake(command, env, stdout, stderr):
        calls.append(command)
        assert env["OMP_NUM_THREADS"] == "1"
        out = Path(command[command.index("--out") + 1])
        rows = ["step,name,value", "5,validation/iou/local,0.25", "9,validation/iou/local,0.5", "9,train/loss,1"]
        (out / "metrics.csv").write_text("\n".join(rows))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(study.subprocess, "run", fake)
    monkeypatch.setattr(study, "frozen_models", lambda base, overrides: {"clip": base})
    first = study.run(experiment, "a", 3, tmp_path / "work", tmp_path / "results")
    assert first == study.run(experiment, "a", 3, tmp_path / "work", tmp_path / "results")
    assert len(calls) == 1 and calls[0][-6:-2] == ["--initial_region", "first-3", "--seed", "3"]
    assert first["steps"] == 9 and first["validation"] == {"iou/local": 0.5}
    assert first["models"] == {"clip": "base.yaml"}
    assert [point["iou/local"] for point in first["curve"]] == [0.25, 0.5]
    assert json.loads((tmp_path / "results" / "name" / "a-3.json").read_text()) == first


def test_the_frozen_models_are_known_by_their_bytes(tmp_path):
    copy = tmp_path / "t5"
    shutil.copytree("checkpoints/microworld/t5", copy)
    base = "configs/train_microworld.yaml"
    shipped = study.frozen_models(base, ["--encoders.instruction", str(copy)])
    (copy / "config.json").write_text("{}")
    study.identify.__globals__["_folder_sha256"].cache_clear()
    changed = study.frozen_models(base, ["--encoders.instruction", str(copy)])
    assert set(shipped) == {"clip", "instruction", "generator"} and all(len(d) == 8 for d in shipped.values())
    assert changed["instruction"] != shipped["instruction"] and changed["clip"] == shipped["clip"]


def test_a_run_that_fails_names_its_log_and_leaves_no_result(tmp_path, monkeypatch):
    experiment = study.Experiment("name", "Why?", "base.yaml", [], {"a": []}, [0], [])
    monkeypatch.setattr(study.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 2))
    with pytest.raises(RuntimeError, match="train.py stopped with exit code 2; see .*train.log"):
        study.run(experiment, "a", 0, tmp_path / "work", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_every_variant_runs_with_every_seed_and_an_error_is_passed_on(tmp_path):
    experiment = study.Experiment("name", "Why?", "base.yaml", [], {"a": [], "b": []}, [0, 1], [])
    args = study.options("d").parse_args(["--jobs", "2", "--work", str(tmp_path), "--results", "r"])

    def work(experiment, variant, seed, limit, work, results):
        assert (limit, work, str(results)) == (7, tmp_path, "r")
        return {"variant": variant, "seed": seed}

    found = study.run_all(work, experiment, args, 7)
    assert [(row["variant"], row["seed"]) for row in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    with pytest.raises(AssertionError):
        study.run_all(work, experiment, args, 8)


def test_a_run_without_validation_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,name,value\n1,train/loss,2\n")
    with pytest.raises(ValueError, match="never validated"):
        study.last_validation(tmp_path / "metrics.csv")


def test_edits_of_a_run_are_scored_once(tmp_path, monkeypatch):
    experiment = study.Experiment("name", "Why?", "base.yaml", [], {"a": []}, [0], [])
    calls = []

    def fake(command, log):
        calls.append(command)
        out = Path(command[command.index("--out") + 1])
        out.mkdir(parents=True)
        metrics = {name: {"mean": 0.25, "n": 7} for name in study_edits.METRICS}
        (out / "summary.json").write_text(json.dumps({"metrics": metrics}))

    monkeypatch.setattr(study, "run_logged", fake)
    first = study_edits.edit(experiment, "a", 0, 7, tmp_path / "work", tmp_path / "results")
    assert first == study_edits.edit(experiment, "a", 0, 7, tmp_path / "work", tmp_path / "results")
    assert len(calls) == 1 and "--limit" in calls[0]
    assert first["test"] == dict.fromkeys(study_edits.METRICS, 0.25)
    assert json.loads((tmp_path / "results" / "name_edits" / "a-0.json").read_text()) == first


def result(iou: float) -> dict:
    scores = {"iou/local": iou, "iou_best/local": iou + 0.1, "pointing/local": 0.5, "region_area": 0.2}
    return {"steps": 7, "validation": scores, "models": {"clip": "0123abcd"}}


def test_an_interval_is_students():
    mean, half = figures.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.3027 / np.sqrt(3), abs=1e-3)
    assert np.isnan(figures.interval([4.0])[1])


def test_a_section_shows_what_was_run_beside_what_it_is_compared_with(tmp_path):
    for name, iou in (("old/all-0", 0.5), ("new/a-0", 0.25), ("new/a-1", 0.35)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.json").write_text(json.dumps(result(iou)))
    experiment = study.Experiment("new", "Is it?", "base.yaml", [], {"a": [], "not_yet": []}, [0, 1], ["old/all"])
    runs = study_report.runs_of(experiment, tmp_path)
    assert list(runs) == ["old: all", "a"]
    section = study_report.experiment_section(experiment, runs)
    assert "| old: all | 1 | 7 | 0.500 | 0.600 | 0.500 | 0.200 | - |" in section
    assert "| a | 2 | 7 | 0.300 ± 0.635 |" in section and "not_yet" not in section
    assert section.endswith("frozen models: clip 0123abcd")


def test_results_of_different_frozen_models_are_kept_apart():
    experiment = study.Experiment("new", "Is it?", "base.yaml", [], {"a": []}, [0], [])
    runs = {"a": [result(0.5), result(0.5) | {"models": {"clip": "ffffffff"}}]}
    assert study_report.experiment_section(experiment, runs).endswith("clip 0123abcd; and: clip ffffffff")


def test_a_variant_is_not_mistaken_for_one_whose_name_begins_alike(tmp_path):
    (tmp_path / "e").mkdir()
    for name in ("full-0", "full-1", "full_other-0", "full-wide-0"):
        (tmp_path / "e" / f"{name}.json").write_text(json.dumps({"seed": name}))
    assert [found["seed"] for found in study_report.results_of(tmp_path, "e/full")] == ["full-0", "full-1"]


def test_every_figure_can_be_drawn_and_is_the_same_twice(tmp_path):
    results = [result(0.4), result(0.5)]
    quality = {
        name: {"mask_iou": 1.0, "success/remove": 0.5, "l1_to_target": 0.1, "change_outside_truth": 0.0}
        for name in "ab"
    }
    picture = np.zeros((64, 64, 3), np.uint8)
    rows = pd.DataFrame(
        {
            "operation": ["remove", "replace", "add"],
            "things": [2, 3, 1],
            "radius": [6.0, 13.0, np.nan],
            "alike": ["color", "", np.nan],
            "pair_seen": [True, False, True],
            "phrasing_seen": True,
            "iou": [0.2, 0.9, 0.0],
            "pointing": [0.0, 1.0, np.nan],
            "region_area": 0.1,
            "true_area": 0.2,
            "failure": ["too large", "", "empty"],
        }
    )
    drawn = {
        "runs": lambda: figures.of_runs({"a": results, "b": results[:1]}),
        "quality": lambda: figures.of_mask_quality(quality),
        "sizes": lambda: figures.of_region_sizes(rows),
        "failures": lambda: figures.of_failures(rows),
        "regions": lambda: figures.of_regions([(picture, "before", [("do", np.eye(64))])]),
    }
    for name, draw in drawn.items():
        study_report.save(draw(), tmp_path / "one", name)
    study_report.save(drawn["failures"](), tmp_path / "two", "failures")
    for file in (tmp_path / "two").iterdir():
        assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes()
    section = study_report.failure_section(rows, rows.assign(iou=0.5))
    assert "| remove | 1 | 0.200 | 0.500 | 0.000 | 0.000 | 0.100 | 0.200 | 0% | 0% | 100% | 0% |" in section


def test_regions_over_time_stand_beside_their_own_pictures(monkeypatch):
    known = watch_regions.look_alikes()
    p_BN = np.zeros((len(known.edits), 64))
    p_BN[2, 0] = 1  # the upper left patch of the third picture
    monkeypatch.setattr(figures, "of_regions", lambda rows: rows)
    rows = study_report.regions_over_time(known, {"1500": p_BN.tolist()})
    assert [title for _, title, _ in rows] == known.instructions
    assert [[title for title, _ in regions] for *_, regions in rows] == [["step 1,500"]] * len(rows)
    assert rows[2][2][0][1][:4, :4].min() == 1 and not np.any(rows[1][2][0][1])
    assert not rows[2][2][0][1][12:].any()
