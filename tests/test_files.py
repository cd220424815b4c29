"""Writing: whole files, files that belong together, and what killed writers leave."""

import multiprocessing
import os
from pathlib import Path

import pytest

from regionedit.files import remove_leftovers, whole_file, write_together


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
