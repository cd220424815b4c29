"""Uploads become the requests of a batch; a list names uploaded files and nothing else; what is finished stays."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from regionedit.records import Captions
from regionedit.web.batch_tab import edit_all, gather, zipped
from regionedit.web.settings import Settings
from regionedit.web.studio import Studio
from tests.test_infer import RESULT, photo

TEXT = "make the red circle blue"
SETTINGS = Settings(TEXT, num_inference_steps=2, guidance_scale=3.0)


@pytest.fixture(scope="module")
def studio(tiny_app_config) -> Studio:
    """Its describer gives every picture the same captions."""
    studio = Studio(replace(tiny_app_config, mask_source="centre_box", max_pictures=4))
    studio.editor.models.describer(studio.editor.config)._write = lambda instructions, pictures: (
        [Captions("a red circle", "a blue circle")] * len(instructions)
    )
    return studio


@pytest.fixture
def uploads(tmp_path) -> list[tuple[Path, str]]:
    return [(photo(tmp_path / f"up{k}" / "x.png", seed=k), name) for k, name in enumerate(("a.png", "b.png"))]


def with_list(tmp_path, uploads, name: str, text: str):
    path = tmp_path / "list"
    path.write_text(text)
    return [*uploads, (path, name)]


def test_every_picture_gets_the_instruction(studio, uploads, tmp_path):
    requests = gather(studio, uploads, SETTINGS, tmp_path / "job")
    assert [(request.id, request.instructions[0].text) for request in requests] == [("a", TEXT), ("b", TEXT)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "image,instruction,seed\nb.png,remove it,3\n"),
        ("l.CSV", "\ufeffImage;Instruction;Seed\nb.png;remove it;3\n"),
        ("l.jsonl", json.dumps({"image": "b.png", "instruction": "remove it", "seed": 3}) + "\n"),
    ],
)
def test_a_list_says_what_to_do_with_each(studio, uploads, tmp_path, name, text):
    (request,) = gather(studio, with_list(tmp_path, uploads, name, text), SETTINGS, tmp_path / "job")
    assert (request.id, request.instructions[0].text, request.seed) == ("b", "remove it", 3)


def test_a_mask_beside_its_picture_is_its_mask(studio, uploads, tmp_path):
    mask = tmp_path / "x"
    Image.new("RGB", (60, 44), "red").save(mask, "PNG")
    requests = gather(studio, [*uploads, (mask, "b_mask.png")], SETTINGS, tmp_path / "job")
    assert [(r.id, r.mask and r.mask.name) for r in requests] == [("a", None), ("b", "b_mask.png")]


def test_a_batch_goes_on_after_its_uploads_were_deleted(studio, uploads, tmp_path):
    first = gather(studio, uploads, SETTINGS, tmp_path / "job")
    (tmp_path / "job" / "left.png").write_bytes(b"of an earlier batch")
    kept = [request.image.read_bytes() for request in first]
    for path, _ in uploads:
        path.unlink()
    again = gather(studio, uploads, SETTINGS, tmp_path / "job")
    assert [request.image.read_bytes() for request in again] == kept
    assert not (tmp_path / "job" / "left.png").exists()
    with pytest.raises(ValueError, match=r"'b.png'.*no longer on the server; choose it again"):
        gather(studio, [uploads[0], (tmp_path / "another.png", "b.png")], SETTINGS, tmp_path / "job")


@pytest.mark.parametrize("image", ["/etc/passwd", "../up0/x.png", "..\\x.png", "sub/../a.png", ""])
def test_a_list_reads_no_file_of_the_server(studio, uploads, tmp_path, image):
    listed = with_list(tmp_path, uploads, "l.jsonl", json.dumps({"image": image, "instruction": "x"}))
    with pytest.raises(ValueError) as refused:
        gather(studio, listed, SETTINGS, tmp_path / "job")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.jsonl", "{", "line 1: not JSON"),
        ("l.jsonl", '{"image": "none.png", "instruction": "x"}', "no such file"),
        ("l.jsonl", '["a.png"]', "not a JSON object"),
        ("l.csv", "image,instruction,seed\na.png,x,many\n", "seed"),
        ("l.csv", "picture\na.png\n", "unknown field"),
        ("l.exe", "", "neither a picture nor a list"),
        ("a.png", "", "uploaded twice"),
    ],
)
def test_a_list_that_cannot_be_read_says_where(studio, uploads, tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said) as refused:
        gather(studio, with_list(tmp_path, uploads, name, text), SETTINGS, tmp_path / "job")
    assert str(tmp_path) not in str(refused.value)


def test_nothing_and_too_much_are_refused(studio, uploads, tmp_path):
    with pytest.raises(ValueError, match="choose pictures"):
        gather(studio, [], SETTINGS, tmp_path / "job")
    with pytest.raises(ValueError, match="at most 4"):
        gather(studio, uploads * 3, SETTINGS, tmp_path / "job")


def test_a_batch_goes_on_where_it_stopped_and_comes_as_a_zip(studio, uploads, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    job, out = tmp_path / "job", tmp_path / "out"
    *_, items = edit_all(studio, gather(studio, [*uploads, (bad, "bad.png")], SETTINGS, job), SETTINGS, out)
    assert {item.id for item in items if item.share is not None} == {"a", "b"}
    (failed,) = [item for item in items if item.failure]
    assert failed.id == "bad" and str(tmp_path) not in failed.failure
    record = json.loads((out / "a" / "run.json").read_text())
    assert record["picture"]["path"] == "a.png" and str(tmp_path) not in json.dumps(record["picture"])
    *_, again = edit_all(studio, gather(studio, uploads, SETTINGS, job), SETTINGS, out)
    assert [item.share for item in again] == [None, None]
    with zipfile.ZipFile(zipped(out, tmp_path / "all.zip")) as archive:
        names = set(archive.namelist())
    assert names >= {f"a/{name}" for name in RESULT} and "contact_sheet.png" in names


def test_one_instruction_is_encoded_once(studio, tiny_app_config, uploads, tmp_path, monkeypatch):
    learned = Studio(replace(tiny_app_config, batch=1))
    learned.editor.models = studio.editor.models
    encoder, encoded = studio.editor.models.encoders(studio.editor.config)[1], []
    encode = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda self, texts: encoded.append(texts) or encode(self, texts))
    *_, items = edit_all(learned, gather(learned, uploads, SETTINGS, tmp_path / "job"), SETTINGS, tmp_path / "out")
    assert len(items) == 2 and not any(item.failure for item in items)
    assert encoded == [(TEXT,)]
