"""Emu Edit: the split is chosen by its number of rows, captions are filtered by rules or by a list of ids."""

import json
import warnings

import pytest

from regionedit.evaluation.benchmarks.emu_edit import KEPT, ROWS, EmuEdit, EmuEditUnfiltered, caption_flaw
from tests.benchmark_fixtures import LONG_CAPTION, TASKS, emu_row, flawed_emu_rows, write_emu_edit

pytestmark = pytest.mark.filterwarnings("ignore:no split has")

SMALL = [emu_row(i, split="validation") for i in range(3)]


def whole_set(flawed: int) -> list[dict]:
    """3,589 rows, the first `flawed` of them with identical captions."""
    one = emu_row(0)
    return [one | {"idx": i} | ({"output_caption": " A DOG"} if i < flawed else {}) for i in range(ROWS)]


def test_the_test_set_is_chosen_by_its_number_of_rows_if_the_split_names_are_swapped(tmp_path):
    write_emu_edit(tmp_path, SMALL, split="test")
    write_emu_edit(tmp_path, whole_set(ROWS - KEPT), split="validation", shards=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 2,834 of 3,589 rows are kept, as expected: no warning
        cases = EmuEdit(tmp_path)
    assert cases.split.name == "validation"
    assert cases.counts == {"rows": 3589, "kept": 2834, "identical captions": 755}
    assert cases.protocol["split"] == "3,589 rows"
    assert len(cases) == 2834 and next(iter(cases)).id == "755"


def test_an_unexpected_number_of_kept_rows_warns_with_every_reason(tmp_path):
    write_emu_edit(tmp_path, whole_set(700))
    with pytest.warns(UserWarning, match=r"kept 2,889 of 3,589 .* 2,834 \(755 left out\): .*identical captions 700"):
        EmuEdit(tmp_path)


def test_a_small_set_is_chosen_by_the_split_named_in_its_rows_with_a_warning(tmp_path):
    write_emu_edit(tmp_path, SMALL, split="test")
    write_emu_edit(tmp_path, flawed_emu_rows(), split="validation", shards=2)
    with pytest.warns(UserWarning, match=r"'validation' with 10 is taken, of: test \(3 rows\), validation \(10 rows\)"):
        cases = EmuEdit(tmp_path)
    assert cases.protocol["split"] == "validation, 10 rows"


def test_ambiguous_splits_are_an_error(tmp_path):
    for split in ("test", "validation"):
        write_emu_edit(tmp_path, SMALL, split=split)
    with pytest.raises(ValueError, match=r"no split has 3,589 rows.*test \(3 rows\), validation \(3 rows\)"):
        EmuEdit(tmp_path)


@pytest.fixture
def flawed(tmp_path):
    return write_emu_edit(tmp_path / "emu", flawed_emu_rows(), shards=2)


def test_flawed_captions_are_left_out_and_counted_by_reason(flawed):
    cases = EmuEdit(flawed)
    kept = {case.id: case for case in cases}
    assert list(kept) == ["5", "9", "0", "1", "3", "7"]
    assert cases.counts == {
        "rows": 10,
        "kept": 6,
        "identical captions": 1,
        "placeholder caption": 1,
        "empty caption": 2,
    }
    assert kept["3"].request.captions.source == LONG_CAPTION
    assert all(case.operation == TASKS[int(name) % 7] for name, case in kept.items())
    assert kept["9"].request.instruction == "make it a cat, 9"
    assert kept["9"].request.image.size == (6, 4)


def test_the_filter_can_be_switched_off_or_replaced_by_a_list_of_ids(flawed, tmp_path):
    cases = EmuEditUnfiltered(flawed)
    assert cases.counts == {"rows": 10, "kept": 10}
    assert cases.protocol["caption_filter"] == "none"
    assert {case.id: case.request.captions.source for case in cases}["8"] == ""
    (tmp_path / "ids.json").write_text(json.dumps([{"idx": 2}, {"idx": 7}]))
    cases = EmuEdit(flawed, ids=tmp_path / "ids.json")
    assert [case.id for case in cases] == ["2", "7"]
    assert cases.counts == {"rows": 10, "kept": 2, "not in the list of ids": 8}
    assert cases.protocol["caption_filter"] == "a list of ids"


def test_unknown_tasks_stay_and_rows_without_an_instruction_are_counted(tmp_path):
    rows = [emu_row(0, task="relight"), emu_row(1, instruction=" "), emu_row(2, instruction=None)]
    cases = EmuEdit(write_emu_edit(tmp_path, rows))
    assert [case.operation for case in cases] == ["relight"]
    assert cases.counts == {"rows": 3, "kept": 1, "no instruction": 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([emu_row(3), emu_row(3)], "id '3' comes twice"),
        (
            [{k: v for k, v in emu_row(0).items() if k != "output_caption"}],
            "no column 'output_caption'; there are: ins",
        ),
        ([emu_row(0, "a", "a"), emu_row(1, "", "")], "no row of .* is left: .*identical captions 1, empty caption 1"),
    ],
)
def test_unusable_data_is_named(rows, message, tmp_path):
    with pytest.raises(ValueError, match=f"^data: .*{message}"):
        EmuEdit(write_emu_edit(tmp_path, rows))


@pytest.mark.parametrize("stored", [b"", b"no picture", emu_row(0)["image"][:60], None])
def test_a_row_whose_picture_cannot_be_read_is_named(stored, tmp_path):
    cases = iter(EmuEdit(write_emu_edit(tmp_path, [emu_row(0), emu_row(1, image=stored)])))
    assert next(cases).id == "0"
    with pytest.raises(ValueError, match="^data: idx 1 of split 'test'"):
        next(cases)


@pytest.mark.parametrize(
    ("first", "second", "flaw"),
    [
        ("a dog", "a cat", None),
        ("a dog", "a dogs", None),
        ("a dog, 1.", "\t A DOG, 1.\n", "identical captions"),
        ("a dog", " A train station in city.\n", "placeholder caption"),
        ("a dog", " \t", "empty caption"),
        ("a dog", "", "empty caption"),
        ("a dog", None, "empty caption"),
    ],
)
def test_flaws_of_a_pair_of_captions_in_either_order(first, second, flaw):
    assert caption_flaw(first, second) == caption_flaw(second, first) == flaw
