"""The region on the page: sliders and corrections make a mask without a model."""

import numpy as np
import pytest
from PIL import Image

from regionedit.config import RegionConfig
from regionedit.display import difference, heat_map
from regionedit.mask_files import MaskReading, understand
from regionedit.mask_operations import OPERATIONS, operated
from regionedit.originals import file_notes, with_original
from regionedit.records import FoundRegion
from regionedit.results import changed_outside
from regionedit.web import messages
from regionedit.web.edit_tab import region_values
from regionedit.web.sketch import Cut, Sketch, stroke_mask
from tests.stored_pictures import noise

CONFIG = RegionConfig()


def found(patches=None) -> FoundRegion:
    """Probability rises from left to right; the mask is where it is above one half."""
    probability = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
    mask = Image.fromarray(((probability > 0.5) * 255).astype(np.uint8))
    return FoundRegion(
        mask=mask, probability=probability, patches=patches, mask_source="learned", timings={"region": 0.0}
    )


def columns(mask: Image.Image) -> int:
    return int((np.asarray(mask)[0] > 0).sum())


def test_the_sliders_cut_grow_and_soften():
    sketch = Sketch(noise(40, 30), found())
    assert columns(sketch.mask(Cut(0.5, 0, 0), CONFIG)) == 20
    assert columns(sketch.mask(Cut(0.8, 0, 0), CONFIG)) == 8
    assert columns(sketch.mask(Cut(0.5, 3, 0), CONFIG)) == 23
    assert columns(sketch.mask(Cut(0.5, -3, 0), CONFIG)) == 17
    soft = np.asarray(sketch.mask(Cut(0.5, 0, 5), CONFIG))[0]
    assert (soft[:20] == 0).all() and soft[-1] == 255 and len(set(soft[20:])) > 3


def test_another_threshold_keeps_what_the_configuration_dilates():
    sketch = Sketch(noise(40, 30), found(np.zeros((8, 8), np.float32)))
    assert columns(sketch.mask(Cut(0.8, 0, 0), RegionConfig(dilate=1.0))) == 8 + 5  # a patch is five pixels wide


def test_corrections_win_over_the_sliders_and_can_be_undone():
    sketch = Sketch(noise(40, 30), found())
    left = stroke_mask((40, 30), [(3, 15)], 2)
    added = sketch.corrected(left, adds=True)
    mask = np.asarray(added.mask(Cut(0.9, 0, 0), CONFIG))
    assert mask[15, 3] == 255 and mask[2, 3] == 0
    erased = added.corrected(stroke_mask((40, 30), [(0, 15), (39, 15)], 3), adds=False)
    assert np.asarray(erased.mask(Cut(0.1, 0, 0), CONFIG))[15].max() == 0
    assert np.asarray(erased.undone().mask(Cut(0.9, 0, 0), CONFIG))[15, 3] == 255
    assert erased.cleared().mask(Cut(0.5, 0, 0), CONFIG).tobytes() == sketch.mask(Cut(0.5, 0, 0), CONFIG).tobytes()
    assert sketch.is_own(Cut(0.5, 0, 0), CONFIG) and not sketch.is_own(Cut(0.5, 1, 0), CONFIG)
    assert not added.is_own(Cut(0.5, 0, 0), CONFIG)


def test_a_region_of_another_instruction_is_stale_and_a_painted_one_never():
    assert Sketch(noise(40, 30)).is_stale("a") and Sketch(noise(40, 30), found(), "b").is_stale("a")
    assert not Sketch(noise(40, 30), found(), "a").is_stale("a")
    assert not Sketch(noise(40, 30)).corrected(stroke_mask((40, 30), [(3, 15)], 2), adds=True).is_stale("a")


def test_a_region_can_be_painted_where_nothing_was_found():
    sketch = Sketch(noise(40, 30)).corrected(stroke_mask((40, 30), [(10, 10)], 4), adds=True)
    assert sketch.mask(Cut.of(CONFIG), CONFIG).getbbox() == (6, 6, 15, 15)
    assert sketch.shown(Cut.of(CONFIG), CONFIG).size == (40 * 12, 30 * 12)


def test_impossible_strokes_are_refused_and_strokes_outside_change_nothing():
    for points in ([], [["x", 1]], [[1]], [[float("nan"), 1]], None):
        with pytest.raises(ValueError, match="stroke"):
            stroke_mask((40, 30), points, 3)
    assert stroke_mask((40, 30), [(-1e6, -1e6)], 1e9).size == (40, 30)
    assert stroke_mask((40, 30), [(-100, -100)], 3).getbbox() is None


def test_the_heat_map_leaves_alone_what_is_improbable():
    source, region = noise(40, 30), found()
    shown = np.asarray(heat_map(source, region.probability, region.mask))
    assert np.array_equal(shown[:, 0], np.asarray(source)[:, 0]) and (shown != np.asarray(source)).any()


def test_pixels_outside_are_counted():
    source = noise(40, 30)
    mask = Image.new("L", source.size)
    mask.paste(255, (0, 0, 10, 10))
    result = source.copy()
    result.paste((0, 0, 0), (5, 5, 12, 6))
    assert changed_outside(source, result, mask) == 2 and changed_outside(source, source, mask) == 0
    assert np.asarray(difference(source, result)).any() and not np.asarray(difference(source, source)).any()


def test_a_mask_file_is_the_region_for_any_instruction_and_its_meaning_is_kept():
    soft = Image.fromarray(np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1)))
    mask = understand(soft, MaskReading(mask_soft=True))
    sketch, cut = Sketch.masked(noise(40, 30), mask), Cut.of(CONFIG)
    assert not sketch.is_stale("anything") and not sketch.is_own(cut, CONFIG)
    assert sketch.mask(cut, CONFIG).tobytes() == soft.tobytes()
    assert sketch.mask(cut, CONFIG).info["notes"] == ["mask: grey values are edited in part"]
    line = messages.region(sketch.found, 0.5)
    assert "mask: grey values are edited in part" in line and "found by" not in line


def test_a_mask_file_is_not_grown_until_the_user_says_so():
    """The page grows a region that was found by 8 px; a file means what it says."""
    config, mask = RegionConfig(grow=8, feather=2.0), Image.new("L", (40, 30))
    mask.paste(255, (12, 10, 20, 18))
    searched, opened = Sketch(noise(40, 30), found()), Sketch.masked(noise(40, 30), mask)
    cut = opened.cut_after(searched, Cut.of(config), config)
    assert cut == Cut(0.5, 0, 0) and opened.mask(cut, config).tobytes() == mask.tobytes()
    grown = opened.mask(Cut(0.5, 3, 0), config)
    assert grown.getbbox() == (9, 7, 23, 21)
    moved = Cut(0.5, 5, 2.0)
    assert opened.cut_after(searched, moved, config) == Cut(0.5, 5, 0), "the slider that was moved stays"
    assert opened.cut_after(opened, moved, config) == moved and opened.cut_after(None, Cut.of(config), config) == cut
    assert searched.cut_after(opened, cut, config) == Cut.of(config), "a region that is found is grown again"
    assert searched.cut_after(searched, cut, config) == cut


def test_a_mask_file_that_a_slider_widens_is_said_in_the_words_of_the_command_line():
    config, mask = RegionConfig(grow=8), Image.new("L", (40, 30))
    mask.paste(255, (12, 10, 20, 18))
    read = understand(mask)
    sketch = Sketch.masked(noise(40, 30), read)
    wider = sketch.mask(Cut(0.5, 1, 0), config)
    (added,) = file_notes(with_original(noise(40, 30)), read, wider, "png")[1:]
    assert added.startswith("mask: 36 pixels were added to it by region.grow")
    assert wider.info["notes"] == ["mask: white is edited", added]
    assert f"mask: white is edited; {added}" in region_values(sketch, Cut(0.5, 1, 0), config)[1]
    assert "added" not in region_values(sketch, Cut(0.5, 0, 0), config)[1]
    painted = sketch.corrected(mask, adds=True)
    assert "added" not in region_values(painted, Cut(0.5, 1, 0), config)[1], "the user sees what was painted"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_changes_the_region_that_is_seen_and_can_be_undone(operation):
    cut = Cut(0.5, 2, 0)
    sketch = Sketch(noise(40, 30), found()).corrected(stroke_mask((40, 30), [(3, 15)], 2), adds=True)
    before = np.asarray(sketch.mask(cut, CONFIG), np.float32) / 255
    changed = sketch.operated(operation, cut, CONFIG)
    assert np.array_equal(np.asarray(changed.mask(cut, CONFIG)) > 0, operated(before, [operation]) > 0)
    assert changed.undone().mask(cut, CONFIG).tobytes() == sketch.mask(cut, CONFIG).tobytes()
