"""ImgEdit-Bench's basic suite: one JSON file and pictures in folders by subject."""

import json

import pytest

from regionedit.evaluation.benchmarks.imgedit import ImgEditBench
from tests.benchmark_fixtures import write_imgedit


@pytest.fixture
def folder(tmp_path):
    return write_imgedit(tmp_path)


def change(folder, key, **values):
    rows = json.loads((folder / "basic_edit.json").read_text())
    rows[key].update(values)
    (folder / "basic_edit.json").write_text(json.dumps(rows))


@pytest.mark.filterwarnings("ignore:data")
def test_cases_have_their_keys_types_and_pictures_and_empty_prompts_are_counted(folder):
    cases = ImgEditBench(folder)
    requests = {case.id: (case.operation, case.request.instruction) for case in cases}
    assert requests["1082"] == ("adjust", "change it 0") and requests["1083"] == ("compose", "change it 1")
    assert list(requests) == ["1082", "1083", "1084"]
    assert cases.counts == {"rows": 4, "kept": 3, "no instruction": 1}
    (folder / "ids").write_text("1084")
    assert [case.id for case in ImgEditBench(folder, ids=folder / "ids")] == ["1084"]


def test_a_part_of_the_suite_brings_a_warning(folder):
    with pytest.warns(UserWarning, match="has 3 requests, ImgEdit-Bench 737"):
        ImgEditBench(folder)


def test_wrong_files_are_named(folder):
    change(folder, "1083", edit_type="hybrid")
    with pytest.raises(ValueError, match="basic_edit.json: 1083: no edit_type 'hybrid'"):
        ImgEditBench(folder)
    change(folder, "1083", edit_type="compose")
    (folder / "animal/00031.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 3 pictures are missing, the first is .*animal/00031.jpg"):
        ImgEditBench(folder)
    (folder / "basic_edit.json").write_text('{"1": {"id": "a.jpg"}}')
    with pytest.raises(ValueError, match=r"not ImgEdit-Bench's list of cases: KeyError\('prompt'\)"):
        ImgEditBench(folder)
