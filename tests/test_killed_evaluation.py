"""An evaluation that is killed, in the editing and in the scoring, ends as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CASES = 96


def run(*command: str) -> subprocess.Popen:
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, stdout=quiet, start_new_session=True)


def kill_when(running: subprocess.Popen, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path):
    data = tmp_path / "data"
    pack = ("data_prep/microworld/pack.py", "--split", "test", "--samples", str(CASES), "--out", str(data))
    assert run(*pack).wait() == 0

    def command(out: Path) -> tuple[str, ...]:
        small = "--baselines [] --edited_baselines [] --generator.num_inference_steps 2 --batch 4".split()
        config = ("evaluate.py", "--config", "configs/evaluate_microworld.yaml", "--data", str(data), "--out", str(out))
        return (*config, *small)

    def edited() -> dict[str, int]:
        """When the pictures of finished cases were written; a case's record is written last."""
        names = [path.stem for path in (out / "records").glob("*.json")]
        return {name: (out / "pictures" / f"{name}.png").stat().st_mtime_ns for name in names}

    def scored() -> int:
        return sum(len(path.read_text().splitlines()) - 1 for path in (out / "scores").glob("*.jsonl"))

    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert run(*command(whole)).wait() == 0
    kill_when(run(*command(out)), lambda: len(edited()) >= CASES // 3)
    first = edited()
    assert len(first) < CASES
    kill_when(run(*command(out)), lambda: scored() >= 1)
    assert 1 <= scored() < CASES and len(edited()) == CASES
    assert {name: edited()[name] for name in first} == first  # not edited again
    assert run(*command(out)).wait() == 0

    left, right = (json.loads((folder / "summary.json").read_text()) for folder in (whole, out))
    assert left | {"seconds": 0} == right | {"seconds": 0}
    for picture in (whole / "pictures").iterdir():
        assert picture.read_bytes() == (out / "pictures" / picture.name).read_bytes()
