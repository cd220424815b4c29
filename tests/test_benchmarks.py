"""Every benchmark as it is on disk: each case once, read lazily, in a fixed order; errors name wrong folders."""

import json
import re
import warnings

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation import METRICS
from regionedit.evaluation.benchmarks import BENCHMARKS
from regionedit.evaluation.benchmarks.base import case_ids, kept_ids, read_ids
from tests.benchmark_fixtures import WRITERS

FACTS = {  # number of cases, and what the error message for a wrong folder must name
    "emu_edit": (6, "facebook/emu_edit_test_set"),
    "emu_edit_unfiltered": (10, "facebook/emu_edit_test_set"),
    "magicbrush": (6, "edit_sessions.json, images/"),
    "magicbrush_every_turn": (6, "edit_sessions.json, images/"),
    "magicbrush_multi_turn": (6, "edit_sessions.json, images/"),
    "pie_bench": (4, "mapping_file.json, annotation_images/"),
    "human_edit": (4, "BryanW/HumanEdit"),
    "editing_mask": (4, "Editing-Mask_list.txt, image/, mask/"),
    "comp_bench": (6, "BohanJia/CompBench"),
    "comp_bench_local": (3, "BohanJia/CompBench"),
    "comp_bench_multi_object": (1, "BohanJia/CompBench"),
    "comp_bench_implicit": (1, "BohanJia/CompBench"),
    "comp_bench_turn_1": (4, "BohanJia/CompBench"),
    "comp_bench_turn_2": (4, "BohanJia/CompBench"),
    "gedit": (3, "stepfun-ai/GEdit-Bench"),
    "gedit_chinese": (3, "stepfun-ai/GEdit-Bench"),
    "imgedit": (3, "basic_edit.json"),
    "dlebench": (3, "data.jsonl, Source_Images/, Reference_Images/"),
    "folder": (3, "JSONL"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp("data") / name) for name, write in WRITERS.items()}


def quietly(name: str, *arguments):
    """The benchmark, without the warnings about the small size of the fixture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BENCHMARKS[name](*arguments)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "microworld"])
def test_a_benchmark_yields_every_case_once_and_can_be_read_again(name, data):
    cases = quietly(name, data[name])
    first, again = list(cases), list(cases)
    ids = [case.id for case in first]
    assert len(ids) == len(set(ids)) == len(cases) == FACTS[name][0]
    assert [case.id for case in again] == ids
    assert [c.request.image.tobytes() for c in again] == [c.request.image.tobytes() for c in first]
    for case in first:
        assert re.fullmatch(r"[\w-][\w.-]*", case.id)
        assert case.request.id == case.id
        assert case.request.mask is None
        assert case.request.image.mode == "RGB"
        assert set(case.groups) == set(first[0].groups)
        assert case.truth_image is None or case.truth_image.mode == "RGB"
        if case.truth_mask is not None:
            assert case.truth_mask.mode == "L" and case.truth_mask.size == case.request.image.size
            assert set(np.unique(case.truth_mask)) <= {0, 255}
    assert len(set(cases.metrics)) == len(cases.metrics) and set(cases.metrics) <= set(METRICS)
    assert all(type(count) is int for count in cases.counts.values())
    assert {"reference", "caption_filter", "resize"} <= set(cases.protocol)
    assert all(type(value) is str for value in cases.protocol.values())


@pytest.mark.parametrize("name", WRITERS)
def test_pictures_are_opened_lazily(name, data, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **named: opened.append(args) or original(*args, **named))
    cases = quietly(name, data[name])
    assert not opened
    next(iter(cases))
    assert 1 <= len(opened) <= 3


@pytest.mark.parametrize("name", WRITERS)
def test_limit_and_ids_choose_cases(name, data, tmp_path):
    whole = [case.id for case in quietly(name, data[name])]
    if name in ("magicbrush_multi_turn", "magicbrush_every_turn"):
        assert [case.id for case in quietly(name, data[name], 1)] == ["139_1", "139_iter_2", "139_iter_3"]
        chosen, expected = ["149_iter_2"], ["149_1", "149_iter_2"]
    else:
        assert [case.id for case in quietly(name, data[name], 2)] == whole[:2]
        chosen, expected = whole[::-2], [case for case in whole if case in whole[::-2]]
    (tmp_path / "ids.txt").write_text("\n".join(chosen))
    assert [case.id for case in quietly(name, data[name], 0, tmp_path / "ids.txt")] == expected


@pytest.mark.parametrize("name", WRITERS)
def test_for_a_wrong_folder_the_error_names_what_was_expected_and_what_is_there(name, tmp_path):
    (tmp_path / "holiday.txt").write_text("x")
    with pytest.raises(ValueError, match="^data: ") as error:
        BENCHMARKS[name](tmp_path)
    assert FACTS[name][1] in str(error.value) and "holiday.txt" in str(error.value)
    with pytest.raises(ValueError, match="^data: .*no/such/folder"):
        BENCHMARKS[name]("no/such/folder")


@pytest.mark.parametrize("name", WRITERS)
def test_an_unfinished_download_is_named(name, tmp_path):
    folder = WRITERS[name](tmp_path / "data")
    (folder / ".cache/huggingface/download").mkdir(parents=True)
    (folder / ".cache/huggingface/download/part.incomplete").write_text("")
    with pytest.raises(ValueError, match="part.incomplete is a half-finished download"):
        quietly(name, folder)


@pytest.mark.parametrize("text", ['["7", 12]', '[{"idx": 7}, {"id": "12"}]', "7\n\n 12 \n"])
def test_ids_are_read_from_a_json_list_of_ids_or_rows_and_from_lines(text, tmp_path):
    (tmp_path / "ids").write_text(text)
    assert read_ids(tmp_path / "ids") == ["7", "12"]


@pytest.mark.parametrize("text", ["", "[]", "[1,"])
def test_unreadable_ids_are_refused(text, tmp_path):
    (tmp_path / "ids").write_text(text)
    with pytest.raises(ValueError, match="^ids: "):
        read_ids(tmp_path / "ids")


def test_missing_ids_warn_and_no_matching_id_is_an_error(tmp_path):
    (tmp_path / "ids").write_text(json.dumps(["a", "x", "y"]))
    with pytest.warns(UserWarning, match="2 of .* are not in the data: x, y"):
        assert kept_ids(["a", "b"], tmp_path / "ids") == {"a"}
    with pytest.raises(ValueError, match="^ids: .* lists none of the 1 cases; ids look like b"):
        kept_ids(["b"], tmp_path / "ids")


def test_names_become_ids_that_can_name_files():
    assert case_ids(["a/b c", "a/b c", "..", "a_b_c", "ü"]) == ["a_b_c", "a_b_c_2", "case", "a_b_c_3", "ü"]
