"""infer.py with masks as people have them: what is edited, what the result says, folders of masks, mask operations."""

import json

import numpy as np
import pytest
from PIL import Image

from regionedit.display import overlay
from tests.test_infer import files, photo

TEXT = "make the red circle blue"
STRIP = np.zeros((44, 60), bool)
STRIP[:, 20:30] = True


@pytest.fixture
def picture(tmp_path):
    return photo(tmp_path / "in.png")


@pytest.fixture
def hole(picture, tmp_path):
    """MagicBrush's form: the picture with a transparent hole."""
    rgba = np.asarray(Image.open(picture).convert("RGBA")).copy()
    rgba[STRIP] = 0
    Image.fromarray(rgba).save(tmp_path / "hole.png")
    return tmp_path / "hole.png"


def read(folder):
    return {
        name: np.asarray(Image.open(folder / name)) for name in ("mask.png", "result.png", "overlay.png")
    }, json.loads((folder / "run.json").read_text())


def test_what_was_understood_is_edited_said_recorded_and_drawn(call, picture, hole, tmp_path, capsys):
    words = ("--image", picture, "--instruction", TEXT, "--mask", hole)
    assert call(*words, "--out", tmp_path / "a") == 0
    made, record = read(tmp_path / "a")
    source = Image.open(picture)
    assert np.array_equal(made["mask.png"], STRIP * 255)
    assert np.array_equal(made["result.png"][~STRIP], np.asarray(source)[~STRIP])
    assert (made["result.png"] != np.asarray(source))[STRIP].any()
    assert np.array_equal(made["overlay.png"], np.asarray(overlay(source, Image.fromarray(made["mask.png"]))))
    assert "mask: the transparent hole is edited" in capsys.readouterr().out and "transparent hole" in record["note"]
    assert record["mask"]["path"] == str(hole) and record["mask"]["notes"] == ["mask: the transparent hole is edited"]
    assert call(*words, "--mask_is", "alpha", "--mask_operations", "invert,box", "--out", tmp_path / "b") == 0
    made, record = read(tmp_path / "b")
    assert np.array_equal(made["mask.png"], STRIP * 255) and record["mask_operations"] == ["invert", "box"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--mask {picture}", "in.png: a picture, not a mask"),
        ("--mask {ids}", "ids.png: the mask's brightest value is 7 of 255"),
        ("--mask {hole} --mask_is white", "mask_is"),
        ("--mask {hole} --mask_value seven", "mask_value: 'seven'"),
        ("--mask {hole} --mask_soft maybe", "mask_soft"),
        ("--mask {hole} --mask_operations widen", "mask_operations: 'widen' is unknown; there are: invert, fill"),
        ("--mask_is alpha", "mask_is: it says how to read a mask; give a mask as well"),
        ("--mask {folder}", "is a folder, but the image is one file"),
    ],
)
def test_a_mask_that_means_nothing_is_refused_before_anything_is_loaded(
    arguments, message, refused, picture, hole, tmp_path
):
    Image.fromarray((STRIP * 3 + np.roll(STRIP, 20, 1) * 7).astype(np.uint8)).save(tmp_path / "ids.png")
    given = arguments.format(picture=picture, hole=hole, ids=tmp_path / "ids.png", folder=tmp_path).split()
    assert message in refused("--image", picture, "--instruction", TEXT, *given)


def test_a_folder_of_masks_and_a_list_of_what_was_skipped(call, tmp_path, capsys):
    for name in ("a.png", "sub/b.JPG", "lonely.png"):
        photo(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("x")
    for name in ("a_mask.png", "sub/b.png"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((STRIP * 255).astype(np.uint8)).save(tmp_path / "m" / name)
    out = tmp_path / "in" / "out"
    words = ("--image", tmp_path / "in", "--instruction", TEXT, "--mask", tmp_path / "m", "--out", out)
    for expected in ("2 edited", "2 finished before"):
        assert call(*words) == 0
        said = capsys.readouterr().out
        assert expected in said and "2 skipped, see" in said and "lonely" in said
    assert files(out) == {"a", "sub_b", "contact_sheet.png", "failures.jsonl", "log.txt", "skipped.jsonl"}
    assert all(np.array_equal(read(out / name)[0]["mask.png"], STRIP * 255) for name in ("a", "sub_b"))
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [row["path"].rsplit("/", 1)[1] for row in rows] == ["lonely.png", "notes.txt"]


def test_a_csv_of_requests_with_masks(call, picture, hole, tmp_path, capsys):
    Image.fromarray((STRIP * 7).astype(np.uint8)).save(tmp_path / "ids.png")
    rows = [
        "Image;Instruction;Mask;Mask_is;Mask_value;Mask_operations;Id",
        f'in.png;"{TEXT}";hole.png;;;;hole',
        f"in.png;{TEXT};hole.png;alpha;;invert;inverted",
        f"in.png;{TEXT};ids.png;;7;;value",
        f"in.png;{TEXT};ids.png;;;;refused",
    ]
    (tmp_path / "r.csv").write_text("\r\n".join(rows), "utf-8-sig")
    out = tmp_path / "out"
    assert call("--requests", tmp_path / "r.csv", "--out", out) == 1
    for name in ("hole", "inverted", "value"):
        assert np.array_equal(read(out / name)[0]["mask.png"], STRIP * 255), name
    (failure,) = (out / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["id"] == "refused" and "mask_value" in json.loads(failure)["reason"]


def test_one_value_of_a_map_is_edited(call, picture, tmp_path):
    Image.fromarray((STRIP * 3 + np.roll(STRIP, 20, 1) * 7).astype(np.uint8)).save(tmp_path / "m.png")
    words = ("--image", picture, "--instruction", TEXT, "--mask", tmp_path / "m.png", "--out", tmp_path / "a")
    assert call(*words, "--mask_value", 3) == 0
    assert np.array_equal(read(tmp_path / "a")[0]["mask.png"], STRIP * 255)
