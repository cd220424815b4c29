"""The benchmark Editing-Mask with its two kinds of lines, and a user's own folder of pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from regionedit.evaluation.benchmarks.editing_mask import EditingMask, exchange
from regionedit.evaluation.benchmarks.folder import Folder
from regionedit.records import Instruction
from tests.benchmark_fixtures import EDITING_MASK_LINES, SIZE, picture, save, write_editing_mask, write_folder

LEFT = np.zeros(SIZE[::-1], np.uint8)
LEFT[:, :16] = 255


def test_lines_of_both_kinds_become_cases_with_bright_masks_and_a_missing_one_is_counted(tmp_path):
    benchmark = EditingMask(write_editing_mask(tmp_path))
    cases = list(benchmark)
    assert [(case.id, case.groups["origin"]) for case in cases] == [
        ("1", "imagen"),
        ("10", "imagen"),
        ("28602", "imagenet"),
        ("04483", "imagenet"),
    ]
    assert [(case.request.captions.source, case.request.captions.target) for case in cases[1:3]] == [
        ("A fuzzy panda riding a bike.", "A fuzzy panda skateboarding."),
        ("a beagle", "a Afghan hound"),  # the authors' own prompt
    ]
    assert cases[0].request.instruction == "change Persian cat to a raccoon"
    masks = [case.truth_mask for case in cases]
    assert all(np.array_equal(np.asarray(mask), LEFT) for mask in masks[:3]) and masks[3] is None
    assert benchmark.counts == {"lines": 4, "kept": 4, "without mask: its file is missing": 1}


@pytest.mark.parametrize("layout", ["inside dataset/Editing-Mask", "a folder of its own"])
def test_the_data_are_found_from_other_folders(layout, tmp_path):
    folder = write_editing_mask(tmp_path / "InstDiffEdit")
    data = folder / "dataset/Editing-Mask"
    if layout == "a folder of its own":
        (folder / "dataset_txt/Editing-Mask_list.txt").rename(data / "Editing-Mask_list.txt")
        (data / "image").rename(data / "images")
        for mask in (data / "mask").iterdir():
            mask.rename(mask.with_stem(f"{mask.stem}-mask"))
    assert [case.truth_mask is not None for case in EditingMask(data)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("caption", "source", "target", "expected"),
    [
        ("A photo of a Persian cat on a beach.", "Persian cat", "a raccoon", "A photo of a raccoon on a beach."),
        ("An oil painting of a dog.", "oil painting", "photo", "An photo of a dog."),
        ("A dog on top of a mountain.", "on top of a mountain", "on a beach", "A dog on a beach."),
        ("Data dog", "dog", "a cat", "Data a cat"),
        ("nothing of it", "dog", "a cat", "a cat"),
    ],
)
def test_a_phrase_is_replaced_with_its_article(caption, source, target, expected):
    assert exchange(caption, source, target) == expected


def spoil(folder, what):
    data = folder / "dataset/Editing-Mask"
    listed = folder / "dataset_txt/Editing-Mask_list.txt"
    if what == "line":
        listed.write_text("1 <> two fields")
    elif what == "twice":
        listed.write_text("\n".join(EDITING_MASK_LINES[:1] * 2))
    elif what == "picture":
        (data / "image/10.jpg").unlink()
    elif what == "masks":
        for mask in (data / "mask").iterdir():
            mask.rename(mask.with_stem(f"other{mask.stem}"))
    elif what == "archive":
        (data / "mask").rename(data / "elsewhere")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("line", "line 1 is neither `id <> caption"),
        ("twice", "id '1' comes twice"),
        ("picture", "1 of 4 pictures are missing, the first is .*10.jpg"),
        ("masks", "has no mask of these pictures, such as 1.png; found: other1.png"),
        ("archive", r"has no mask/ \(is dataset/Editing-Mask.zip still packed\?\)"),
    ],
)
def test_errors_in_the_editing_mask_data_are_named(what, message, tmp_path):
    folder = write_editing_mask(tmp_path)
    spoil(folder, what)
    with pytest.raises(ValueError, match=f"^data: .*{message}"):
        EditingMask(folder)


def test_a_line_can_have_all_there_can_be_or_picture_and_instruction_alone(tmp_path):
    cases = Folder(write_folder(tmp_path) / "cases.jsonl")
    case, second, third = cases
    assert case.request.instructions == (Instruction("make the cat blue", 2.0, "cat"), Instruction("remove the dog"))
    assert (case.request.captions.source, case.request.captions.target) == ("a cat and a dog", "a blue cat")
    assert case.operation == "recolour"
    assert np.array_equal(np.asarray(case.truth_mask), LEFT)
    assert case.truth_image.tobytes() == picture(7).tobytes()
    assert (second.id, second.request.seed, third.id, third.operation) == ("1", 4, "2", "edit")
    assert second.truth_image is not None
    assert third.request.captions is third.truth_mask is third.truth_image is None
    assert cases.counts == {"cases": 3, "kept": 3, "with target caption": 1, "with target picture": 2, "with mask": 1}


def test_a_mask_of_another_size_is_enlarged_and_an_empty_one_counted(tmp_path):
    folder = write_folder(tmp_path)
    small = Image.new("L", (4, 3))
    small.paste(255, (0, 0, 2, 3))
    save(small, folder / "mask.png")
    assert np.array_equal(np.asarray(next(iter(Folder(folder))).truth_mask), LEFT)
    save(Image.new("L", (4, 3)), folder / "mask.png")
    cases = Folder(folder)
    assert next(iter(cases)).truth_mask is None
    assert cases.counts["without mask: it covers nothing"] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "none.png"}, "line 1: target: .*none.png: no such file"),
        ({"mask": "none.png"}, "line 1: mask: .*none.png: no such file"),
        ({"operation": ""}, "line 1: operation: '' is empty or not a string; give a text"),
        ({"captions": "x"}, "line 1: unknown field 'captions'"),
        ({"id": "../x"}, "line 1: id: '../x' cannot name a folder"),
        ({"id": "a"}, "id 'a' comes twice"),
    ],
)
def test_an_unusable_line_is_named(changed, message, tmp_path):
    folder = write_folder(tmp_path)
    lines = [
        {"image": "pictures/0.png", "instruction": "x"} | changed,
        {"image": "mask.png", "instruction": "x", "id": "a"},
    ]
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=f"^data: .*{message}"):
        Folder(folder)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\n"])
def test_a_file_that_is_not_jsonl_is_refused(text, tmp_path):
    (tmp_path / "cases.jsonl").write_text(text)
    with pytest.raises(ValueError, match="^data: .*cases.jsonl"):
        Folder(tmp_path)


def test_two_jsonl_files_need_a_choice(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "other.jsonl").write_text("")
    with pytest.raises(ValueError, match="has 2 JSONL files where one is needed; found: cases.jsonl, other.jsonl"):
        Folder(folder)
