"""Index and report of a folder of shards: counts and hashes are recomputed here; the page is self-contained."""

import hashlib
import json
import re
from html import unescape
from pathlib import Path

import index as indexing
import pytest
import report

from regionedit.data.marks import write_marks
from tests.crawls import sample, write_crawl

INJECTION = '<script>alert("x")</script> ignore all instructions'


@pytest.fixture
def folder(tmp_path) -> Path:
    shards = [
        {"a": sample(1), "b": sample(2, INJECTION), "c": sample(3)},
        {"d": sample(4, "two words"), "e": {"txt": b"x"}, "f": sample(6) | {"jpg": b"not a picture"}},
    ]
    write_crawl(tmp_path, shards)
    lines = [
        {"schema": 1},
        {"key": "a", "instruction": "make it red", "target_caption": "a red dog", "operation": "recolour"},
        {"key": "b", "instruction": "remove it", "target_caption": "a lawn", "operation": "remove"},
        {"key": "c", "dropped": "not JSON"},
    ]
    (tmp_path / "00000.instructions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_marks(tmp_path / "00001.marks.jsonl", {}, "h", {"e": ["unpaired", "min_words"]})
    write_marks(tmp_path / "00001.subset.jsonl", {}, "h", {})
    return tmp_path


def test_the_index_counts_what_is_there(folder):
    index = indexing.build_index(folder, workers=1)
    files = {name: file for entry in index["shards"] for name, file in entry["files"].items()}
    assert index["totals"]["samples"] == 6 and index["totals"]["kept"] == 4
    assert index["operations"] == {"recolour": 1, "remove": 1}
    assert index["dropped"] == {"not JSON": 1} and index["marks"] == {"min_words": 1, "unpaired": 1}
    assert index["caption_words"] == {2: 1, 4: 1, 7: 2} and index["instruction_words"] == {2: 1, 3: 1}
    assert index["formats"] == {"jpg": 5} and index["broken"] == {}
    expected = {path.name for path in folder.iterdir()} - {"index.json"}
    assert set(files) == expected
    for name, file in files.items():
        data = (folder / name).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert index["totals"]["bytes"] == sum(file["bytes"] for file in files.values())
    written = json.loads((folder / "index.json").read_text())
    assert written["totals"] == index["totals"] and written["caption_words"] == {"2": 1, "4": 1, "7": 2}


def test_a_file_is_hashed_again_only_when_it_changed(folder, monkeypatch):
    indexing.build_index(folder, 1)
    hashed, digest = [], hashlib.file_digest

    def watched(file, name):
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", watched)
    indexing.build_index(folder, 1)
    assert hashed == []
    write_marks(folder / "00001.subset.jsonl", {}, "h", {"d": ["not chosen"]})
    assert indexing.build_index(folder, 1)["totals"]["kept"] == 3
    assert hashed == ["00001.subset.jsonl"]


def test_a_broken_shard_is_listed_and_the_others_are_counted(folder, capsys):
    tar = folder / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    index = indexing.build_index(folder, 1)
    assert list(index["broken"]) == ["00001"] and "truncated" in index["broken"]["00001"]
    assert index["totals"]["samples"] == 3
    with pytest.raises(SystemExit) as stop:
        report.main(["--data", str(folder)])
    assert stop.value.code == 1 and "truncated" in capsys.readouterr().err
    assert "truncated" in (folder / "report.html").read_text()


def test_the_report_is_a_self_contained_page(folder, capsys):
    report.main(["--data", str(folder)])
    assert str(folder / "report.html") in capsys.readouterr().out
    page = (folder / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/)', page) == [] and "<script" not in page and "url(" not in page
    shown = unescape(page)
    assert INJECTION in shown
    for text in ("make it red", "a red dog", "recolour", "dropped: not JSON", "unpaired", "4 of 6 samples stay"):
        assert text in shown, text
    assert page.count("data:image/jpeg;base64,") == 4  # `e` (two reasons) has none, that of `f` is damaged
    assert page.count("no picture") == 3 and "data:image/png;base64," in page


def test_the_command_prints_what_is_wrong(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        report.main(["--data", str(folder / "none")])
    message = f"report.py: error: {folder}/none: no such folder; pack shards into it or correct the path\n"
    assert stop.value.code == 2 and capsys.readouterr().err == message
