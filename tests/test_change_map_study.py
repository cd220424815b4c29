"""The validation of the change map: known places, disturbances, and the table in the documentation."""

import json
from pathlib import Path

import change_map_study
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation


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
