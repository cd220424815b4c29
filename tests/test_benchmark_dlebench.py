"""DLEBench: its layout, the fields that the user names, and the rows that are left out."""

import json

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation.benchmarks.dlebench import DleBench
from regionedit.records import Captions
from tests.benchmark_fixtures import write_dlebench

FIELDS = "image, reference_image, edit_operation, prompt_clean, their_caption, their_request, boxes"
pytestmark = pytest.mark.filterwarnings("ignore:data. .*usable rows")


@pytest.fixture
def folder(tmp_path):
    return write_dlebench(tmp_path)


def change(folder, number, **values):
    lines = (folder / "data.jsonl").read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | values)
    (folder / "data.jsonl").write_text("\n".join(lines))


def test_a_case_has_its_own_source_reference_texts_and_operation(folder):
    benchmark = DleBench(folder)
    cases = {case.id: case for case in benchmark}
    assert [case.operation for case in cases.values()] == ["add", "remove", "replace"]
    case = cases["0001"]
    assert case.request.instruction == "do 1" and case.request.captions == Captions("a desk 1", "a tidy desk 1")
    assert np.array_equal(case.request.image, Image.open(folder / "Source_Images/0001.jpg"))
    assert np.array_equal(case.truth_image, Image.open(folder / "Reference_Images/0001.jpg"))
    assert benchmark.protocol["instruction"] == "their_request" and "not comparable" in benchmark.protocol["judge"]
    assert {"l1", "l2", "clip_image", "dino"} <= set(benchmark.metrics) and benchmark.rubric is None
    (folder / "fields.yaml").write_text("instruction: their_request")
    assert next(iter(DleBench(folder))).request.captions is None, "a source caption alone describes no edit"


def test_every_row_that_is_left_out_is_counted_by_its_reason(folder):
    left_out = {"reference picture missing": 1, "same as an earlier row": 1}
    assert DleBench(folder, limit=1).counts == {"rows": 5, "kept": 3} | left_out
    change(folder, 1, their_request=" ")
    change(folder, 2, image="none.jpg")
    change(folder, 4, their_request="do more")  # now another edit with the same pictures
    with pytest.warns(UserWarning, match=r"2 usable rows \(no their_request: 1, source picture missing: 1, reference"):
        benchmark = DleBench(folder)
    assert [(case.id, case.request.instruction) for case in benchmark] == [("0000", "do 0"), ("0000_2", "do more")]
    for number in (0, 4):
        change(folder, number, edit_operation=None)
    with pytest.raises(ValueError, match="has no usable row; no edit_operation: 2"):
        DleBench(folder)


@pytest.mark.parametrize("text", [None, "instruction:", "target_caption: boxes", "instruction: boxes\nmask: boxes"])
def test_without_the_name_of_the_instructions_field_the_error_lists_the_fields(folder, text):
    (folder / "fields.yaml").unlink() if text is None else (folder / "fields.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"fields.yaml must say .*`instruction: FIELD`.* has the fields {FIELDS}$"):
        DleBench(folder)


def test_an_unknown_field_and_a_broken_line_are_named(folder):
    (folder / "fields.yaml").write_text("instruction: prompt")
    with pytest.raises(ValueError, match=f"has no field 'prompt' .*; data.jsonl has the fields {FIELDS}$"):
        DleBench(folder)
    (folder / "data.jsonl").write_text('{"image": "a.jpg"}\n{"image"')
    with pytest.raises(ValueError, match="data.jsonl, line 2: not a JSON object"):
        DleBench(folder)
