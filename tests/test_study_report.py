"""The study's tables and figures from small results of every kind."""

import json

import figures
import numpy as np
import pandas as pd
import pytest
import study
import study_report
import watch_regions


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
