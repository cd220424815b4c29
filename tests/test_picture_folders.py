"""Folders of pictures and masks as they lie on disk: endings, subfolders, names, and what was skipped."""

import errno
import json
import os
from pathlib import Path

import pytest
from PIL import Image, features

from regionedit.images import decode, open_picture
from regionedit.picture_folders import folder_requests, write_skipped
from regionedit.request_files import RequestFile

LIKE = RequestFile(Path("x"), "make it red", id="x")


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(folder / name)
    return folder


def pairs(requests, folder: Path) -> dict[str, str]:
    """Id -> mask, relative to `folder`."""
    return {request.id: str(request.mask.relative_to(folder)) for request in requests}


def reasons(skipped, folder: Path) -> dict[str, str]:
    return {str(one.path.relative_to(folder)): one.reason for one in skipped}


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.PNG", "a.JPG", "a.jfif", "a.JPEG", "a.jpe", "a.avif", "a.jp2", "a.tga", "a.TGA", "a.ppm", "a.pgm",
     "a.webp", "a.TIF", "a.tiff", "a.bmp", "a.gif", "a.dib", "a.pcx"],
)  # fmt: skip
def test_every_kind_of_picture_is_found_and_opened(name, tmp_path):
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    Image.new("L" if name.endswith("pgm") else "RGB", (8, 6)).save(tmp_path / name)
    (request,), skipped = folder_requests(tmp_path, LIKE)
    assert request.id == "a" and not skipped and open_picture(request.image).size == (8, 6)


def test_heic_is_read_with_its_package_and_without_it_the_message_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40))
    (request,), _ = folder_requests(tmp_path, LIKE)
    assert request.image == path
    monkeypatch.setattr("regionedit.images._register_heif", lambda: False)
    with pytest.raises(ValueError, match=r"a\.heic: not a picture .*pip install 'regionedit\[heif\]'"):
        decode(path, 10_000)


def test_subfolders_are_searched_and_what_is_skipped_has_a_reason(tmp_path):
    pictures(tmp_path, "cat.png", "a/cat.JPG", "a/b/dog.png", ".hidden/x.png", "out/cat/result.png", ".x.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "README").write_text("x")
    pictures(tmp_path, "earlier/result.png", "earlier/mask.png")
    (tmp_path / "earlier" / "run.json").write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    pictures(tmp_path, "sheets/contact_sheet.png")
    (tmp_path / "sheets" / "failures.jsonl").write_text("")
    requests, skipped = folder_requests(tmp_path, LIKE, out=tmp_path / "out")
    assert [request.id for request in requests] == ["a_b_dog", "a_cat", "cat"]
    assert [one.path for one in skipped] == sorted(one.path for one in skipped)
    assert reasons(skipped, tmp_path) == {
        "README": "no ending: not the ending of a picture",
        "earlier": "the result of an earlier edit",
        "linked": "a link to a folder is not followed",
        "notes.txt": ".txt: not the ending of a picture",
        "sheets/contact_sheet.png": "the contact sheet of earlier edits",
        "sheets/failures.jsonl": ".jsonl: not the ending of a picture",
    }
    write_skipped(tmp_path / "out", skipped)
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["path"]).name for line in lines] == [one.path.name for one in skipped]
    write_skipped(tmp_path / "out", [])
    assert not (tmp_path / "out" / "skipped.jsonl").exists()


def test_a_folder_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    pictures(tmp_path, "a.png", "locked/b.png")
    scan = os.scandir

    def refuse(place):
        if Path(place).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    requests, skipped = folder_requests(tmp_path, LIKE)
    assert [request.id for request in requests] == ["a"]
    assert reasons(skipped, tmp_path) == {"locked": "the folder cannot be read: Permission denied"}


def test_no_folder_of_a_result_is_named_like_a_file_beside_it(tmp_path):
    pictures(tmp_path, "log.txt.png", "skipped.jsonl.png")
    assert sorted(r.id for r in folder_requests(tmp_path, LIKE)[0]) == ["log.txt_2", "skipped.jsonl_2"]


def test_ids_stay_unique(tmp_path):
    pictures(tmp_path, "a/cat.png", "a_cat.png", "a_cat.jpg")
    assert sorted(r.id for r in folder_requests(tmp_path, LIKE)[0]) == ["a_cat", "a_cat_2", "a_cat_3"]


def test_ids_stay_unique_on_a_disk_that_ignores_case_and_can_name_folders(tmp_path):
    pictures(tmp_path, "Cat.png", "cat.jpg", "\u00e9.png", "e\u0301.png", f"{'d' * 200}/{'x' * 200}.png")
    ids = [request.id for request in folder_requests(tmp_path, LIKE)[0]]
    assert ids == ["Cat", "cat_2", f"{'d' * 200}_{'x' * 54}", "e\u0301", "\u00e9_2"]


@pytest.mark.parametrize(("place", "composed"), [("", True), ("", False), ("caf\u00e9/", True)])
def test_a_mask_whose_accents_are_written_in_another_way_is_found(place, composed, tmp_path):
    names = ("\u00e9", "e\u0301") if composed else ("e\u0301", "\u00e9")
    folder = pictures(tmp_path / "in", f"{place}{names[0]}.jpg")
    apart = place.replace("\u00e9", "e\u0301")
    masks = pictures(tmp_path / "m", f"{apart}{names[1]}_mask.png")
    ((request,), skipped) = folder_requests(folder, LIKE, masks)
    assert request.mask.name == f"{names[1]}_mask.png" and not skipped
    pictures(folder, f"{place}{names[1]}_mask.png")
    assert [one.path.name for one in folder_requests(folder, LIKE)[1]] == [f"{names[1]}_mask.png"]


def test_masks_are_found_by_name_and_by_suffix(tmp_path):
    folder = pictures(tmp_path / "in", "cat.jpg", "dog.PNG", "bird.png", "a/cat.png", "Fox.png", "lonely.png")
    masks = pictures(
        tmp_path / "m", "cat.png", "dog_mask.png", "bird-mask.bmp", "a/cat_mask.png", "fox.png", "else.png"
    )
    requests, skipped = folder_requests(folder, LIKE, masks)
    assert pairs(requests, masks) == {
        "cat": "cat.png", "dog": "dog_mask.png", "bird": "bird-mask.bmp", "a_cat": "a/cat_mask.png", "Fox": "fox.png",
    }  # fmt: skip
    assert reasons(skipped, tmp_path) == {
        "in/lonely.png": f"no mask lonely.* or lonely_mask.* in {masks}",
        "m/else.png": f"a mask without a picture in {folder}",
    }


def test_masks_may_lie_beside_or_below_the_pictures(tmp_path):
    pictures(tmp_path, "cat.jpg", "cat_mask.png", "dog.jpg", "dog_mask.jpg", "lone.png")
    requests, skipped = folder_requests(tmp_path, LIKE, tmp_path)
    assert pairs(requests, tmp_path) == {"cat": "cat_mask.png", "dog": "dog_mask.jpg"}
    assert list(reasons(skipped, tmp_path)) == ["lone.png"]
    below = pictures(tmp_path / "below", "cat.jpg", "masks/cat.png")
    assert pairs(folder_requests(below, LIKE, below / "masks")[0], below) == {"cat": "masks/cat.png"}


def test_a_mask_beside_its_picture_is_not_edited_itself(tmp_path):
    pictures(tmp_path, "cat.jpg", "cat_mask.png", "gas_mask.png")
    requests, skipped = folder_requests(tmp_path, LIKE)
    assert [request.id for request in requests] == ["cat", "gas_mask"]
    assert f"give --mask {tmp_path}" in reasons(skipped, tmp_path)["cat_mask.png"]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (("cat.png", "cat_mask.png"), "could both belong to"),
        (("cat.png", "cat.jpg"), "could both belong to"),
        (("dog.png",), "no file in .* is named like a picture"),
        ((), "no file in .* is named like a picture"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message, tmp_path):
    folder = pictures(tmp_path / "in", "cat.jpg")
    (tmp_path / "m").mkdir()
    with pytest.raises(ValueError, match=message):
        folder_requests(folder, LIKE, pictures(tmp_path / "m", *masks))
