"""HumanEdit and GEdit-Bench: the rows of the hub's tables, with their masks, languages and captions."""

import numpy as np
import pytest

from regionedit.evaluation.benchmarks.gedit import GEdit, GEditChinese
from regionedit.evaluation.benchmarks.human_edit import HumanEdit
from tests.benchmark_fixtures import LONG_CAPTION, SIZE, picture, write_gedit, write_human_edit

pytestmark = pytest.mark.filterwarnings("ignore:data. .*the numbers are")


def test_human_edit_cases_have_captions_black_regions_as_masks_and_ids_of_their_own(tmp_path):
    benchmark = HumanEdit(write_human_edit(tmp_path))
    cases = list(benchmark)
    assert [case.id for case in cases] == ["pexels_0", "pexels_0_2", "pexels_1", "pexels_1_2"]
    assert [case.operation for case in cases] == ["add", "remove", "counting", "action"]
    assert [case.groups["core"] for case in cases] == ["no", "yes", "no", "yes"]
    assert [case.request.captions.target for case in cases] == ["generated 0", "written 1", "written 2", "written 3"]
    assert cases[0].request.captions.source == LONG_CAPTION
    assert cases[1].request.instruction == "do 1"
    masks = [case.truth_mask for case in cases]
    expected = np.zeros(SIZE[::-1], np.uint8)
    expected[:, :16] = 255
    assert all(np.array_equal(np.asarray(mask), expected) for mask in masks[:3])
    assert masks[3] is None
    assert benchmark.counts == {"rows": 4, "kept": 4, "no instruction": 0, "without mask: it covers nothing": 1}


def test_sets_of_unexpected_size_warn(tmp_path):
    with pytest.warns(UserWarning, match="has 4 rows, HumanEdit 5,751"):
        HumanEdit(write_human_edit(tmp_path / "human"))
    with pytest.warns(UserWarning, match="has 3 rows in 'en', GEdit-Bench 606"):
        GEdit(write_gedit(tmp_path / "gedit"))


def test_gedit_takes_the_english_rows_or_the_chinese_ones(tmp_path):
    folder = write_gedit(tmp_path / "gedit")
    english, chinese = GEdit(folder), GEditChinese(folder)
    assert [(c.id, c.request.instruction, c.operation) for c in english] == [
        ("key0", "colour it 0", "color_alter"),
        ("key1", "colour it 1", "ps_human"),
        ("key2", "colour it 2", "color_alter"),
    ]
    assert [case.request.instruction for case in chinese] == [f"改变颜色 {n}" for n in range(3)]
    assert english.counts == {"rows": 6, "kept": 3, "in another language": 3, "no instruction": 0}
    assert english.protocol["language"] == "en" and chinese.protocol["language"] == "cn"
    case = next(iter(english))
    assert case.request.image.tobytes() == picture(0).tobytes()
    assert case.request.captions is None and case.truth_mask is None and case.truth_image is None
