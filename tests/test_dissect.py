"""The failure map and the figure of regions while they are learned."""

from dataclasses import replace
from types import SimpleNamespace

import dissect
import known_edits
import numpy as np
import pytest
import torch
import watch_regions

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


@pytest.fixture
def known():
    return watch_regions.look_alikes()


def test_every_kind_of_neighbour_is_there_and_no_picture_twice(known):
    found = [dissect.facts(edit) for edit in known.edits]
    assert [f["alike"] for f in found] == list(watch_regions.ALIKE)
    assert all(f["things"] > 2 for f in found)
    assert len({edit.instruction for edit in known.edits}) == len(known.edits)


def test_snapshots_hold_every_picture_at_the_requested_steps(known):
    snapshots = watch_regions.Snapshots(known, [1, 3])
    p_BN = torch.rand(len(known.edits), 64)
    clip = SimpleNamespace(encode_image=lambda images_BCHW: SimpleNamespace(patches_BND=images_BCHW))
    words = SimpleNamespace(encode=lambda texts: (texts, None))
    module = SimpleNamespace(frozen=(clip, words, None), device="cpu")
    for step in (1, 2, 3):
        module.predictor = lambda *_, step=step: SimpleNamespace(probability_BN=p_BN * step)
        snapshots.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    assert list(snapshots.probability_BN) == [1, 3]
    assert torch.equal(snapshots.probability_BN[3], p_BN * 3)
