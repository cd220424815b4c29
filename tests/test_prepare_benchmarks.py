"""Preparing benchmarks from downloads in their authors' forms: the same cases, printed counts, nothing unsafe."""

import zipfile
from pathlib import Path

import pytest

from data_prep.prepare_benchmarks import PUBLISHED, main, prepare
from regionedit.evaluation.benchmarks import BENCHMARKS
from tests.benchmark_fixtures import WRITERS, emu_row, write_emu_edit, write_magicbrush, write_pie_bench

pytestmark = pytest.mark.filterwarnings("ignore:.*comparable with")


def zipped(folder: Path, archive: Path, top: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            packed.write(path, Path(top) / path.relative_to(folder))
        packed.writestr("__MACOSX/._mapping_file.json", b"noise")
    return archive


def cases(name: str, folder: Path) -> list[tuple]:
    return [(case.id, case.request.instruction, case.request.image.tobytes()) for case in BENCHMARKS[name](folder)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_downloaded_folder_becomes_one_that_reads_the_same(tmp_path, name):
    download = WRITERS[name](tmp_path / "download")
    prepare(name, download, tmp_path / "out")
    assert cases(name, tmp_path / "out") == cases(name, download)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("name", "top"), [("magicbrush", "test"), ("pie_bench", "PIE-Bench_v1"), ("magicbrush", "")])
def test_an_archive_is_unpacked_without_its_top_folder(tmp_path, name, top):
    download = WRITERS[name](tmp_path / "download")
    archive = zipped(download, tmp_path / "it.zip", top)
    prepare(name, archive, tmp_path / "out")
    assert cases(name, tmp_path / "out") == cases(name, download)
    assert not (tmp_path / "out/__MACOSX").exists()


def test_the_split_of_the_right_size_is_taken_alone(tmp_path, monkeypatch):
    """The hub's other repository has the names of its splits swapped."""
    monkeypatch.setitem(__import__("data_prep.prepare_benchmarks", fromlist=["x"]).HUB_NAMES, "emu_edit", ("x/y", 4))
    write_emu_edit(tmp_path / "download", [emu_row(n) for n in range(4)], split="validation", shards=2)
    write_emu_edit(tmp_path / "download", [emu_row(n) for n in range(3)], split="test")
    benchmark = prepare("emu_edit", tmp_path / "download", tmp_path / "out")
    assert benchmark.counts["rows"] == 4 and len(list((tmp_path / "out").iterdir())) == 2


def test_a_password_is_asked_for_and_tried(tmp_path):
    archive = zipped(write_magicbrush(tmp_path / "download"), tmp_path / "test.zip")
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # say of every member that it is encrypted
        place = data.find(signature)
        while place >= 0:
            data[place + flags] |= 1
            place = data.find(signature, place + 4)
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="^password: .*password required"):
        prepare("magicbrush", archive, tmp_path / "out")
    with pytest.raises(ValueError, match="^password: .*[Bb]ad password"):
        prepare("magicbrush", archive, tmp_path / "out", "MagicBrush")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "test.zip"]


def test_unsafe_and_broken_archives_are_refused(tmp_path):
    archive = zipped(write_pie_bench(tmp_path / "download"), tmp_path / "it.zip")
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("../outside.txt", b"x")
    with pytest.raises(ValueError, match="outside.txt, which leads out of its folder"):
        prepare("pie_bench", archive, tmp_path / "out")
    assert not (tmp_path / "outside.txt").exists() and not (tmp_path / "out").exists()
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match="it.zip: .*download it again"):
        prepare("pie_bench", archive, tmp_path / "out")


def test_another_download_is_named(tmp_path):
    download = write_pie_bench(tmp_path / "download")
    with pytest.raises(ValueError, match="holds no edit_sessions.json; give the folder"):
        prepare("magicbrush", download, tmp_path / "out")
    with pytest.raises(ValueError, match="no such file or folder"):
        prepare("magicbrush", tmp_path / "nowhere", tmp_path / "out")
    (download / "annotation_images/x.part").write_text("")
    with pytest.raises(ValueError, match="half-finished download"):
        prepare("pie_bench", download, tmp_path / "out")


def test_a_broken_picture_is_found(tmp_path):
    download = write_pie_bench(tmp_path / "download")
    next(download.rglob("*.jpg")).write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is not a picture that can be read"):
        prepare("pie_bench", download, tmp_path / "out")


def test_the_command_tells_the_licence_and_fails_on_other_counts(tmp_path, capsys):
    write_magicbrush(tmp_path / "download")
    arguments = ["magicbrush", "--download", str(tmp_path / "download"), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second time only checks
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        printed = capsys.readouterr()
        assert stop.value.code == 1 and "CC BY 4.0" in printed.out
        assert "sessions: 3, published: 535; turns: 6, published: 1,053" in printed.err
    with pytest.raises(SystemExit) as stop:
        main(["pie_bench", "--download", str(tmp_path / "download"), "--out", str(tmp_path / "other")])
    assert stop.value.code == 2 and "mapping_file.json" in capsys.readouterr().err
