"""Whole files or none: files that belong together, killed writers, and a disk that fills or must not be written."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infer
from regionedit.files import remove_leftovers, whole_file, write_together
from regionedit.models import Models
from tests.stub_generators import StubGenerator
from tests.test_infer import RESULT, files


class Killed(BaseException):
    """Stands for the end of the process; no `except Exception` or `except OSError` sees it."""


def test_if_the_last_file_is_there_all_belong_together_wherever_a_second_write_was_killed(tmp_path, monkeypatch):
    real = Path.replace
    for survived in range(4):
        folder = tmp_path / str(survived)
        write_together(folder, {name: b"old" for name in ("a", "b", "mark", "extra")})
        write_together(folder, {name: b"old" for name in ("a", "b", "mark")})
        left = [survived]

        def replace(path, to, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return real(path, to)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            try:
                write_together(folder, {name: b"new" for name in ("a", "b", "mark")}, obsolete=["extra"])
            except Killed:
                assert survived < 3
        assert (folder / "mark").exists() == (survived == 3) and not (folder / "extra").exists()
        remove_leftovers(folder)
        assert {path.name for path in folder.iterdir()} == {"a", "b"} | ({"mark"} if survived == 3 else set())


def test_a_failed_write_keeps_the_earlier_files(tmp_path, monkeypatch):
    write_together(tmp_path, {name: b"old" for name in ("a", "mark", "extra")})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="cannot write to"):
            write_together(tmp_path, {"a": b"new", "mark": b"new"}, obsolete=["extra"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a", "mark", "extra"), b"old"
    )


def _write_slowly(path: Path, opened, end) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        opened.set()
        end.wait(60)


def test_leftovers_of_killed_processes_go_and_files_being_written_stay(tmp_path):
    processes = multiprocessing.get_context("fork")
    opened, end = processes.Event(), processes.Event()
    writer = processes.Process(target=_write_slowly, args=(tmp_path / "below" / "x.tar", opened, end))
    writer.start()
    assert opened.wait(60)
    (tmp_path / ".dead.png.4.part").write_bytes(b"half")
    for kept in ("video.part", ".hidden.part", "a.4.part"):
        (tmp_path / kept).write_bytes(b"a user's own")
    remove_leftovers(tmp_path, below=True)
    assert {path.name for path in tmp_path.iterdir()} == {"below", "video.part", ".hidden.part", "a.4.part"}
    assert [path.name for path in (tmp_path / "below").iterdir()] == [f".x.tar.{writer.pid}.part"]
    writer.kill()
    writer.join()
    remove_leftovers(tmp_path, below=True)
    assert not any((tmp_path / "below").iterdir())
    remove_leftovers(tmp_path / "not there")


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def requests(tmp_path) -> Path:
    lines = []
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"p{number}.png")
        row = {"image": f"p{number}.png", "instruction": "x", "target_caption": "y", "box": [2, 2, 9, 9]}
        lines.append(json.dumps(row) + "\n")
    (tmp_path / "r.jsonl").write_text("".join(lines))
    return tmp_path / "r.jsonl"


@pytest.fixture
def edit(monkeypatch, capsys):
    """Run infer.py with a generator without weights; returns the exit code and the lines of error."""
    monkeypatch.setattr(Models, "generator", lambda self, config: StubGenerator(lambda images: 1 - images))

    def run(*words) -> tuple[int, list[str]]:
        code = infer.main(["--config", "configs/edit_microworld.yaml", "--device", "cpu", *map(str, words)])
        return code, [line for line in capsys.readouterr().err.splitlines() if line.strip()]

    return run


def whole_or_absent(out: Path) -> list[str]:
    """The ids of the finished results; each has all its files, and nothing else is left."""
    folders = [path for path in out.iterdir() if path.is_dir()]
    assert all(files(folder) == RESULT for folder in folders), [files(folder) for folder in folders]
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    for path in out.rglob("*.png"):
        Image.open(path).load()
    return sorted(folder.name for folder in folders)


@pytest.mark.parametrize("failing", [1, 2, 6, 8, 11, 15])
def test_a_disk_that_fills_during_a_batch(requests, edit, monkeypatch, failing, tmp_path):
    """The write number `failing` finds no room, and so do all later ones, also that of the log."""
    out, real, writes = tmp_path / "out", os.fsync, []

    def fsync(descriptor):
        writes.append(descriptor)
        if len(writes) >= failing:
            raise FULL
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        code, lines = edit("--requests", requests, "--out", out)
    assert code == 1 and len(lines) == 1 and "No space left on device" in lines[0] and "Traceback" not in lines[0]
    finished = whole_or_absent(out)
    assert len(finished) == failing // 6, "five files and their folder; the last one only makes the names durable"
    kept = {name: (out / name / "run.json").stat().st_mtime_ns for name in finished}
    code, lines = edit("--requests", requests, "--out", out)
    assert code == 0 and whole_or_absent(out) == ["p0", "p1", "p2"]
    assert kept == {name: (out / name / "run.json").stat().st_mtime_ns for name in finished}, "goes on, not anew"


def test_no_room_even_for_the_log(requests, edit, monkeypatch, tmp_path):
    out, real = tmp_path / "out", Path.open

    def opened(path, mode="r", *more, **given):
        if mode != "r" and mode != "rb" and out in path.parents:
            raise FULL
        return real(path, mode, *more, **given)

    monkeypatch.setattr(Path, "open", opened)
    picture = requests.parent / "p0.png"
    words = ("--image", picture, "--instruction", "x", "--target_caption", "y", "--box", "2,2,9,9", "--out", out)
    code, lines = edit(*words)
    assert code == 1 and len(lines) == 1 and not out.exists()
    assert (
        f"cannot write to {out}: No space left on device" in lines[0] and "traceback could not be written" in lines[0]
    )


def test_a_folder_without_permission_is_found_before_the_work(requests, edit, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    code, lines = edit("--requests", requests, "--out", tmp_path / "new" / "out")
    assert code == 2 and lines == [
        f"infer.py: error: out: no permission to write into {tmp_path}; choose another folder"
    ]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("renamed", [0, 2, 4])
def test_a_file_system_that_turns_read_only_between_two_renames(requests, edit, monkeypatch, tmp_path, renamed):
    real, done = Path.replace, []

    def replace(path, target):
        if len(done) == renamed:
            raise OSError(errno.EROFS, "Read-only file system")
        done.append(path)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    code, lines = edit("--requests", requests, "--out", tmp_path / "out")
    assert code == 1 and len(lines) == 1 and "Read-only file system" in lines[0]
    assert whole_or_absent(tmp_path / "out") == []


def test_a_file_name_that_is_no_text_fails_nothing(requests, edit, tmp_path):
    """Old archives leave such names; run.json must still be one that can be read."""
    folder = tmp_path / "old"
    folder.mkdir()
    (tmp_path / "p0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    words = ("--instruction", "x", "--target_caption", "y", "--box", "2,2,9,9", "--out", tmp_path / "out")
    assert edit("--image", folder, *words) == (0, [])
    (name,) = whole_or_absent(tmp_path / "out")
    record = json.loads((tmp_path / "out" / name / "run.json").read_text())
    assert record["id"] == name and record["picture"]["path"].endswith("caf\udce9.png")
