"""HumanEdit, GEdit-Bench, ImgEdit-Bench and DLEBench: masks, languages, captions, and rows that are left out."""

import json

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation.benchmarks.dlebench import DleBench
from regionedit.evaluation.benchmarks.gedit import GEdit, GEditChinese
from regionedit.evaluation.benchmarks.human_edit import HumanEdit
from regionedit.evaluation.benchmarks.imgedit import ImgEditBench
from regionedit.records import Captions
from tests.benchmark_fixtures import (
    LONG_CAPTION,
    SIZE,
    picture,
    write_dlebench,
    write_gedit,
    write_human_edit,
    write_imgedit,
)

pytestmark = pytest.mark.filterwarnings("ignore:data. .*the numbers are", "ignore:data. .*usable rows")


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


@pytest.fixture
def imgedit(tmp_path):
    return write_imgedit(tmp_path)


def change_imgedit(folder, key, **values):
    rows = json.loads((folder / "basic_edit.json").read_text())
    rows[key].update(values)
    (folder / "basic_edit.json").write_text(json.dumps(rows))


@pytest.mark.filterwarnings("ignore:data")
def test_cases_have_their_keys_types_and_pictures_and_empty_prompts_are_counted(imgedit):
    cases = ImgEditBench(imgedit)
    requests = {case.id: (case.operation, case.request.instruction) for case in cases}
    assert requests["1082"] == ("adjust", "change it 0") and requests["1083"] == ("compose", "change it 1")
    assert list(requests) == ["1082", "1083", "1084"]
    assert cases.counts == {"rows": 4, "kept": 3, "no instruction": 1}
    (imgedit / "ids").write_text("1084")
    assert [case.id for case in ImgEditBench(imgedit, ids=imgedit / "ids")] == ["1084"]


def test_a_part_of_the_suite_brings_a_warning(imgedit):
    with pytest.warns(UserWarning, match="has 3 requests, ImgEdit-Bench 737"):
        ImgEditBench(imgedit)


def test_wrong_files_are_named(imgedit):
    change_imgedit(imgedit, "1083", edit_type="hybrid")
    with pytest.raises(ValueError, match="basic_edit.json: 1083: no edit_type 'hybrid'"):
        ImgEditBench(imgedit)
    change_imgedit(imgedit, "1083", edit_type="compose")
    (imgedit / "animal/00031.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 3 pictures are missing, the first is .*animal/00031.jpg"):
        ImgEditBench(imgedit)
    (imgedit / "basic_edit.json").write_text('{"1": {"id": "a.jpg"}}')
    with pytest.raises(ValueError, match=r"not ImgEdit-Bench's list of cases: KeyError\('prompt'\)"):
        ImgEditBench(imgedit)


FIELDS = "image, reference_image, edit_operation, prompt_clean, their_caption, their_request, boxes"


@pytest.fixture
def dlebench(tmp_path):
    return write_dlebench(tmp_path)


def change_dlebench(folder, number, **values):
    lines = (folder / "data.jsonl").read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | values)
    (folder / "data.jsonl").write_text("\n".join(lines))


def test_a_case_has_its_own_source_reference_texts_and_operation(dlebench):
    benchmark = DleBench(dlebench)
    cases = {case.id: case for case in benchmark}
    assert [case.operation for case in cases.values()] == ["add", "remove", "replace"]
    case = cases["0001"]
    assert case.request.instruction == "do 1" and case.request.captions == Captions("a desk 1", "a tidy desk 1")
    assert np.array_equal(case.request.image, Image.open(dlebench / "Source_Images/0001.jpg"))
    assert np.array_equal(case.truth_image, Image.open(dlebench / "Reference_Images/0001.jpg"))
    assert benchmark.protocol["instruction"] == "their_request" and "not comparable" in benchmark.protocol["judge"]
    assert {"l1", "l2", "clip_image", "dino"} <= set(benchmark.metrics) and benchmark.rubric is None
    (dlebench / "fields.yaml").write_text("instruction: their_request")
    assert next(iter(DleBench(dlebench))).request.captions is None, "a source caption alone describes no edit"


def test_every_row_that_is_left_out_is_counted_by_its_reason(dlebench):
    left_out = {"reference picture missing": 1, "same as an earlier row": 1}
    assert DleBench(dlebench, limit=1).counts == {"rows": 5, "kept": 3} | left_out
    change_dlebench(dlebench, 1, their_request=" ")
    change_dlebench(dlebench, 2, image="none.jpg")
    change_dlebench(dlebench, 4, their_request="do more")  # now another edit with the same pictures
    with pytest.warns(UserWarning, match=r"2 usable rows \(no their_request: 1, source picture missing: 1, reference"):
        benchmark = DleBench(dlebench)
    assert [(case.id, case.request.instruction) for case in benchmark] == [("0000", "do 0"), ("0000_2", "do more")]
    for number in (0, 4):
        change_dlebench(dlebench, number, edit_operation=None)
    with pytest.raises(ValueError, match="has no usable row; no edit_operation: 2"):
        DleBench(dlebench)


@pytest.mark.parametrize("text", [None, "instruction:", "target_caption: boxes", "instruction: boxes\nmask: boxes"])
def test_without_the_name_of_the_instructions_field_the_error_lists_the_fields(dlebench, text):
    (dlebench / "fields.yaml").unlink() if text is None else (dlebench / "fields.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"fields.yaml must say .*`instruction: FIELD`.* has the fields {FIELDS}$"):
        DleBench(dlebench)


def test_an_unknown_field_and_a_broken_line_are_named(dlebench):
    (dlebench / "fields.yaml").write_text("instruction: prompt")
    with pytest.raises(ValueError, match=f"has no field 'prompt' .*; data.jsonl has the fields {FIELDS}$"):
        DleBench(dlebench)
    (dlebench / "data.jsonl").write_text('{"image": "a.jpg"}\n{"image"')
    with pytest.raises(ValueError, match="data.jsonl, line 2: not a JSON object"):
        DleBench(dlebench)
