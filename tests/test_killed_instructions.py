"""Workers that are killed, that share a folder, or that Ray carries: each shard once, the bytes as if undisturbed."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import instruction_shard
import pytest
from write_instructions import run

from tests.instruction_fixtures import config, crawl, sidecars

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


KILLS = 50


def quietly(folder: Path, **changes) -> None:
    """One run in a process of its own, without its progress bar."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    run(config(folder, **changes))


def start(target, *arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """What a finished sidecar would lose by being written again."""
    found = {path.name: path.stat() for path in folder.glob("*.instructions.jsonl")}
    return {name: (about.st_ino, about.st_mtime_ns) for name, about in found.items()}


def test_fifty_kills_lose_no_finished_shard_and_change_no_byte(tmp_path):
    source = crawl(tmp_path / "source", shards=40, samples=100)
    whole = shutil.copytree(source, tmp_path / "whole")
    started = time.monotonic()
    undisturbed = start(quietly, whole)
    undisturbed.join()
    duration, expected = time.monotonic() - started, sidecars(whole)
    assert len(expected) == 40

    dice, cut, rounds = random.Random(0), 0, 0
    folder = shutil.copytree(source, tmp_path / "killed0")
    for _ in range(KILLS):
        before = finished(folder)
        victim = start(quietly, folder)
        time.sleep(dice.uniform(0, duration / 2))
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        after = finished(folder)
        assert {name: after[name] for name in before} == before
        assert all(expected[name] == data for name, data in sidecars(folder).items())
        cut += len(after) < len(expected)
        if len(after) == len(expected):  # nothing left to kill: begin again
            rounds += 1
            folder = shutil.copytree(source, tmp_path / f"killed{rounds}")
    assert cut >= KILLS // 4, "most kills came too late to disturb anything"
    run(config(folder))
    assert sidecars(folder) == expected
    assert not [path for path in folder.iterdir() if "claims" in path.name]


def test_the_command_with_two_processes_goes_on_after_a_kill(tmp_path):
    folder, other = crawl(tmp_path / "a", shards=60, samples=200), crawl(tmp_path / "b", shards=60, samples=200)
    command = [sys.executable, "data_prep/write_instructions.py", "--writer", "stand_in", "--workers", "2", "--data"]
    quiet = subprocess.DEVNULL
    for _ in range(3):
        before = len(sidecars(folder))
        victim = subprocess.Popen([*command, str(folder)], stdout=quiet)
        while len(sidecars(folder)) < before + 5 and victim.poll() is None:
            time.sleep(0.002)
        victim.kill()  # its processes are left alone in the world, and end by themselves
        victim.wait()
    assert subprocess.run([*command, str(folder)], stdout=quiet).returncode == 0
    run(config(other))
    assert sidecars(folder) == sidecars(other)


def test_workers_never_write_a_shard_twice(tmp_path, monkeypatch):
    folder, log = crawl(tmp_path / "a", shards=80, samples=20), tmp_path / "log"
    real = instruction_shard.write_atomic

    def logged(path, data):
        with log.open("a") as file:
            file.write(f"{path.name}\n")
        real(path, data)

    monkeypatch.setattr(instruction_shard, "write_atomic", logged)
    workers = [start(quietly, folder) for _ in range(4)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    written = Counter(log.read_text().split())
    assert len(written) == 80 and set(written.values()) == {1}


def test_ray_gives_the_same_bytes(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason='ray is not installed: pip install "regionedit[scale]"')
    places = [str(Path("src").resolve()), str(Path("data_prep").resolve()), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    one, two = crawl(tmp_path / "one", shards=6), crawl(tmp_path / "two", shards=6)
    (two / "00002.tar").write_bytes((two / "00002.tar").read_bytes()[:3000])
    run(config(one))
    summary = run(config(two, engine="ray", workers=2))
    assert summary.shards == {"written": 5, "failed": 1} and "truncated" in summary.failed["00002"]
    expected = sidecars(one)
    del expected["00002.instructions.jsonl"]
    assert sidecars(two) == expected
    assert run(config(two, engine="ray", workers=2)).shards == {"complete": 5, "failed": 1}
