"""The failure map: kinds of failure, the facts of an edit, and the rows for a perfect and an empty region."""

from dataclasses import replace

import dissect
import known_edits
import numpy as np
import pytest
import torch

from regionedit import masks
from regionedit.microworld.splits import sample


@pytest.mark.parametrize(
    ("region", "kind"), [([], "empty"), ([3], "elsewhere"), ([0, 1, 2, 3], "too large"), ([0], "too small")]
)
def test_kinds_of_failure(region, kind):
    region_N, true_N = np.zeros(4, bool), np.array([True, True, False, False])
    region_N[region] = True
    assert dissect.kind_of_failure(region_N, true_N) == kind


def test_objects_that_share_a_colour_or_shape_are_reported():
    edit = next(e for e in (sample("test", 0, i, ("remove",)) for i in range(50)) if len(e.source.things) == 3)
    named = edit.source.things[edit.named]
    things = [replace(t, color="blue", shape="cross") for t in edit.source.things]
    things[edit.named] = replace(named, color="red", shape="ring")
    assert dissect.facts(replace(edit, source=replace(edit.source, things=tuple(things))))["alike"] == ""
    other = (edit.named + 1) % 3
    things[other] = replace(things[other], color="red")
    assert dissect.facts(replace(edit, source=replace(edit.source, things=tuple(things))))["alike"] == "color"


def test_a_perfect_region_and_an_empty_one():
    known = known_edits.known_edits("test", 0, range(6), ("remove", "add"))
    perfect_BN = (masks.downsample(known.truth_B1HW, 8) > 0.25).float()
    rows = dissect.dissect(known, perfect_BN, 8, 0.5)
    assert (rows["iou"] == 1).all() and (rows["failure"] == "").all()
    assert np.allclose(rows["region_area"], rows["true_area"])
    assert rows["pointing"].dropna().eq(1).all() and rows["pointing"].isna().any()  # `add` names no object to point at
    nothing = dissect.dissect(known, torch.zeros_like(perfect_BN), 8, 0.5)
    assert (nothing["failure"] == "empty").all()


def test_cells_are_grouped_by_true_coverage():
    known = known_edits.known_edits("test", 5, range(150), ("remove", "recolour"))
    covered_BN = masks.downsample(known.truth_B1HW, 8)
    found = dissect.cells(known, covered_BN, 8, 0.5)
    assert set(found) == {"alone", "no look-alike", "same shape", "same colour", "both"}
    for row in found.values():
        assert row["nothing of it"] == row["25% to 50%"] == 0 and row["50% to 90%"] == row["90% to 100%"] == 1
        assert row["ranked"] == 1  # the true coverage ranks every cell correctly
    assert sum(row["cases"] for row in found.values()) == len(known.edits)
    upside_down = dissect.cells(known, 1 - covered_BN, 8, 0.5)
    assert all(row["ranked"] < 0.05 for row in upside_down.values())
