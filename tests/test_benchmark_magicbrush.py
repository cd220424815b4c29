"""MagicBrush: the order of turns and chains, local captions, and masks given as erased regions."""

import json

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation.benchmarks.magicbrush import SESSIONS, TURNS, MagicBrush, MagicBrushMultiTurn
from tests.benchmark_fixtures import SIZE, picture, save, write_magicbrush

pytestmark = pytest.mark.filterwarnings("ignore:data. .* the MagicBrush test set")


@pytest.fixture
def folder(tmp_path):
    return write_magicbrush(tmp_path / "test")


def change_sessions(folder, change):
    path = folder / "edit_sessions.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    return folder


def pixels(image):
    return np.asarray(image).tolist()


def test_single_turn_edits_every_turn_from_its_true_source(folder):
    cases = list(MagicBrush(folder))
    assert [c.id for c in cases] == ["139_1", "30_1", "149_1", "139_inde_2", "149_inde_2", "139_inde_3"]
    assert all(case.scored and case.continues is None for case in cases)
    third = cases[-1]
    assert pixels(third.request.image) == pixels(Image.open(folder / "images/139/139-output2.png"))
    assert pixels(third.truth_image) == pixels(Image.open(folder / "images/139/139-output3.png"))
    assert (third.request.instruction, third.operation, third.groups) == ("turn 3", "turn 3", {"turns": "3"})


def test_multi_turn_chains_the_turns_and_scores_the_last_one_of_each_session(folder):
    cases = {case.id: case for case in MagicBrushMultiTurn(folder)}
    assert list(cases) == ["139_1", "30_1", "149_1", "139_iter_2", "149_iter_2", "139_iter_3"]
    assert {name: case.continues for name, case in cases.items() if case.continues} == {
        "139_iter_2": "139_1",
        "149_iter_2": "149_1",
        "139_iter_3": "139_iter_2",
    }
    assert [name for name, case in cases.items() if case.scored] == ["30_1", "149_iter_2", "139_iter_3"]
    assert pixels(cases["139_iter_3"].request.image) == pixels(Image.open(folder / "images/139/139-output2.png"))


def test_turns_listed_out_of_order_are_sorted(folder):
    change_sessions(folder, lambda rows: rows["139"].reverse())
    instructions = [case.request.instruction for case in MagicBrush(folder) if case.id.startswith("139")]
    assert instructions == ["turn 1", "turn 2", "turn 3"]
    assert [c.id for c in MagicBrushMultiTurn(folder) if c.scored] == ["30_1", "149_iter_2", "139_iter_3"]


def test_a_missing_turn_breaks_the_chain_of_multi_turn_but_not_single_turns(folder, tmp_path):
    change_sessions(folder, lambda rows: rows["139"].pop(1))
    assert [c.id for c in MagicBrush(folder)] == ["139_1", "30_1", "149_1", "149_inde_2", "139_inde_3"]
    with pytest.raises(ValueError, match="turn 3 of session 139 starts from 139-output2.png, which no turn before it"):
        MagicBrushMultiTurn(folder)
    (tmp_path / "ids").write_text("149_iter_2\n30_1")
    assert len(MagicBrushMultiTurn(folder, ids=tmp_path / "ids")) == 3


def test_the_released_numbers_of_sessions_and_turns_bring_no_warning_and_others_do(folder, tmp_path, recwarn):
    whole = {str(n): 1 + (n < 280) + (n < TURNS - SESSIONS - 280) for n in range(SESSIONS)}
    turn = {"input": "a.png", "mask": "", "instruction": "x"}
    listed = {name: [turn | {"output": f"x-output{t}.png"} for t in range(1, n + 1)] for name, n in whole.items()}
    (tmp_path / "ids").write_text("0_1")
    whole_folder = write_magicbrush(tmp_path / "whole", {"0": 1})
    (whole_folder / "edit_sessions.json").write_text(json.dumps(listed))
    for name in ("a.png", "x-output1.png"):
        save(picture(), whole_folder / "images/0" / name)
    recwarn.clear()
    assert MagicBrush(whole_folder, ids=tmp_path / "ids").counts["turns"] == 1053
    assert not recwarn.list
    with pytest.warns(UserWarning, match="has 3 sessions and 6 turns, the MagicBrush test set 535 and 1,053"):
        MagicBrush(folder)


def test_captions_are_local_except_for_the_source_of_a_first_turn(folder):
    cases = MagicBrush(folder)
    captions = {case.id: case.request.captions for case in cases}
    assert (captions["139_1"].source, captions["139_1"].target) == ("all of 139", "part 1 of 139")
    assert (captions["139_inde_2"].source, captions["139_inde_2"].target) == ("part 1 of 139", "part 2 of 139")
    assert (cases.counts["global source caption"], cases.counts["without target caption"]) == (3, 0)


@pytest.mark.parametrize("name", ["local_captions.json", "local_description.json"])
@pytest.mark.parametrize("flat", [False, True])
def test_descriptions_are_found_under_their_other_names_flat_or_nested(name, flat, folder):
    local = json.loads((folder / "local_descriptions.json").read_text())
    (folder / "local_descriptions.json").unlink()
    flattened = {file: caption for captions in local.values() for file, caption in captions.items()}
    (folder / name).write_text(json.dumps(flattened if flat else local))
    assert [c.request.captions.target for c in MagicBrush(folder)][:2] == ["part 1 of 139", "part 1 of 30"]


def test_without_local_descriptions_there_are_no_captions_and_global_ones_are_not_used(folder):
    (folder / "local_descriptions.json").unlink()
    with pytest.warns(UserWarning, match="has no local_descriptions.json.*CLIP-T is defined on local descriptions"):
        cases = MagicBrush(folder)
    assert all(case.request.captions is None for case in cases)
    assert cases.counts["without target caption"] == 6


def test_masks_are_decoded_by_alpha_at_the_pictures_size(folder):
    case = next(iter(MagicBrush(folder)))
    expected = np.zeros(SIZE[::-1], np.uint8)
    expected[:12, :16] = 255  # a quarter of 64x48, at 32x24
    assert pixels(case.truth_mask) == expected.tolist()


def test_unusable_masks_leave_the_case_without_a_mask_and_are_counted_once(folder):
    save(Image.new("RGBA", (8, 8), (9, 9, 9, 255)), folder / "images/139/139-mask1.png")
    save(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), folder / "images/139/139-mask2.png")
    (folder / "images/139/139-mask3.png").unlink()
    cases = MagicBrush(folder)
    without = [[case.id for case in cases if case.truth_mask is None] for _ in range(2)]
    assert without == [["139_1", "139_inde_2", "139_inde_3"]] * 2
    assert {name: count for name, count in cases.counts.items() if "without mask" in name} == {
        "without mask: it covers nothing": 1,
        "without mask: it covers everything": 1,
        "without mask: its file is missing": 1,
    }


def test_a_jpeg_that_is_really_a_png_and_the_reverse_are_opened_by_content(folder):
    save(picture(3), folder / "images/30/30-output1.png", "JPEG")
    (folder / "images/30/30-input.png").rename(folder / "images/30/30-input.jpg")
    change_sessions(folder, lambda rows: rows["30"][0].update(input="30-input.jpg"))
    case = next(case for case in MagicBrush(folder) if case.id == "30_1")
    assert pixels(case.request.image) == pixels(picture(10))
    assert case.truth_image.size == SIZE


def test_missing_pictures_are_counted_and_named_before_anything_is_edited(folder):
    (folder / "images/139/139-output2.png").unlink()
    with pytest.raises(ValueError, match="1 of 9 pictures are missing, the first is .*139-output2.png; complete"):
        MagicBrush(folder)


def test_for_the_parent_folder_the_error_names_the_data_folder(folder):
    with pytest.raises(ValueError, match=r"has no edit_sessions.json; .*; found: test/; did you mean .*/test\?"):
        MagicBrush(folder.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["30"][0].pop("output"), r"edit_sessions.json is not .*KeyError\('output'\)"),
        (lambda rows: rows["30"][0].update(instruction=""), "edit_sessions.json: 30_1 has no instruction"),
        (lambda rows: rows.clear(), "edit_sessions.json holds no turn"),
    ],
)
def test_unreadable_sessions_are_named(change, message, folder):
    with pytest.raises(ValueError, match=f"^data: .*{message}"):
        MagicBrush(change_sessions(folder, change))
