"""infer.py: one picture, a folder or a JSONL of requests; the output files; continuing after an interruption."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionedit.images import open_picture

TEXT = "make the red circle blue"


def photo(path: Path, width=60, height=44, seed=0, **options) -> Path:
    rng = np.random.default_rng(seed)
    light = np.linspace(30, 220, width)[None, :, None] + rng.normal(0, 8, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(path, **options)
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


RESULT = {"result.png", "mask.png", "probability.png", "overlay.png", "run.json"}


def test_an_ordinary_photograph_of_odd_size(call, tmp_path, capsys):
    path = photo(tmp_path / "in.jpg", 517, 389, quality=90)
    out = tmp_path / "out"
    assert call("--image", path, "--instruction", TEXT, "--out", out, "--mask_source", "clip_similarity") == 0
    assert files(out) == RESULT
    source, result = np.asarray(open_picture(path)), np.asarray(open_picture(out / "result.png"))
    mask = np.asarray(Image.open(out / "mask.png"))
    assert result.shape == (389, 517, 3) and 0 < (mask > 0).mean() < 1
    assert np.array_equal(result[mask == 0], source[mask == 0]) and (result[mask > 0] != source[mask > 0]).any()
    printed = capsys.readouterr().out
    assert str(out / "result.png") in printed and "% of the picture edited" in printed


def test_mask_and_box_replace_the_mask_source(call, tmp_path, capsys):
    path = photo(tmp_path / "in.png")
    mask = tmp_path / "m.png"
    Image.fromarray(np.tri(44, 60, dtype=np.uint8) * 255).save(mask)
    words = ("--image", path, "--instruction", "anything", "--target_caption", "a blue circle")
    assert call(*words, "--mask", mask, "--out", tmp_path / "a") == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "mask.png")), np.asarray(Image.open(mask)))
    Image.new("L", (60, 44)).save(mask)
    assert call(*words, "--mask", mask, "--out", tmp_path / "nothing") == 0
    assert "region is empty" in capsys.readouterr().out
    assert call(*words, "--box", "10,5,30,20", "--out", tmp_path / "b") == 0
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert record["mask_source"] == "drawn" and record["box"] == [10, 5, 30, 20]
    assert record["edited_share"] == pytest.approx(300 / (60 * 44), abs=1e-5)
    assert record["captions"] == {"source": "", "target": "a blue circle", "from": "given"}


@pytest.mark.parametrize(
    ("image", "mask", "named"),
    [("result.png", "m.png", "image"), ("p.png", "mask.png", "mask"), ("result.jpg", "m.png", "image")],
)
@pytest.mark.parametrize("in_a_list", [False, True])
def test_a_result_does_not_overwrite_its_own_picture_or_mask(call, image, mask, named, in_a_list, tmp_path, capsys):
    folder = tmp_path / "out" / "x" if in_a_list else tmp_path / "out"
    photo(folder / image)
    Image.new("L", (60, 44), 255).save(folder / mask)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    row = {"image": f"out/x/{image}", "mask": f"out/x/{mask}", "instruction": "x", "id": "x"}
    (tmp_path / "r.jsonl").write_text(json.dumps(row))
    alone = ("--image", folder / image, "--mask", folder / mask, "--instruction", "x")
    words = ("--requests", tmp_path / "r.jsonl") if in_a_list else alone
    assert call(*words, "--out", tmp_path / "out") == 2
    assert f"out: the result would overwrite the {named} " in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in before} == before and not (folder / "run.json").exists()


def test_a_folder_continues_where_it_stopped(call, tmp_path, capsys):
    for i in range(3):
        photo(tmp_path / "in" / f"p{i}.png", seed=i)
    photo(tmp_path / "in" / "p0.jpg", seed=9)
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    out = tmp_path / "out"
    words = ("--image", tmp_path / "in", "--instruction", TEXT, "--out", out, "--mask_source", "centre_box")
    assert call(*words) == 0
    assert (
        files(out) == {"p0", "p0_2", "p1", "p2", "failures.jsonl", "contact_sheet.png", "log.txt", "skipped.jsonl"}
        and files(out / "p1") == RESULT
    )
    assert "4 edited, 25.0% of a picture on average" in capsys.readouterr().out
    (out / "p1" / "run.json").unlink()
    before = (out / "p2" / "run.json").stat().st_mtime_ns
    assert call(*words) == 0
    assert "1 edited" in (said := capsys.readouterr().out) and "3 finished before" in said
    assert (out / "p2" / "run.json").stat().st_mtime_ns == before
    assert call(*words, "--seed", "1") == 0
    assert "4 edited" in capsys.readouterr().out


def test_requests_from_a_file(call, tmp_path, capsys):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png", 20, 30)
    rows = [
        {"image": "a.png", "instruction": TEXT, "seed": 4, "id": "first"},
        {"image": "b.png", "instructions": [{"text": TEXT, "strength": 2.0}, "remove it"], "target_caption": "x"},
        {"image": "b.png", "instruction": "x", "box": [0, 0, 10, 10], "source_caption": "s", "target_caption": "t"},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    out = tmp_path / "out"
    assert call("--requests", tmp_path / "r.jsonl", "--out", out) == 0
    assert files(out) == {"first", "b", "b_2", "failures.jsonl", "contact_sheet.png", "log.txt"}
    record = json.loads((out / "first" / "run.json").read_text())
    assert record["seed"] == 4 and record["mask_source"] == "learned"
    assert len(json.loads((out / "b" / "run.json").read_text())["instructions"]) == 2
    assert json.loads((out / "b_2" / "run.json").read_text())["mask_source"] == "drawn"


def test_several_processes_edit_what_one_would_and_a_failure_stops_neither(call, tmp_path, capsys):
    for i in range(3):
        photo(tmp_path / "in" / f"p{i}.png", seed=i)
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    words = ("--image", tmp_path / "in", "--instruction", TEXT, "--mask_source", "centre_box")
    assert call(*words, "--out", tmp_path / "two", "--workers", "2") == 1
    assert "3 edited" in capsys.readouterr().out
    assert call(*words, "--out", tmp_path / "one") == 1
    said = capsys.readouterr()
    assert "3 edited" in said.out and len(said.err.strip().splitlines()) == 1 and "bad" in said.err
    (failure,) = map(json.loads, (tmp_path / "one" / "failures.jsonl").read_text().splitlines())
    assert failure["id"] == "bad" and "empty" in failure["reason"] and not (tmp_path / "one" / "bad").exists()
    for i in range(3):
        one, two = (np.asarray(Image.open(tmp_path / out / f"p{i}" / "result.png")) for out in ("one", "two"))
        assert np.abs(one.astype(int) - two).max() <= 1


def test_a_bad_argument_answers_before_torch_is_imported(tmp_path):
    code = f"import sys, infer; c = infer.main(['--image', {str(tmp_path / 'no.png')!r}, '--instruction', 'x']); "
    code += "print(c, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"]
    assert len(done.stderr.strip().splitlines()) == 1 and "no.png" in done.stderr
