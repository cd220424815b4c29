"""The page about data, typed as it stands: pictures, instructions by a small real language model, training."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.microworld]


def rehearsal() -> list[str]:
    """Its commands, each on one line."""
    page = Path("docs/data.md").read_text()
    block = re.search(r"## Rehearse it here.*?```bash\n(.*?)```", page, re.S)[1]
    return block.replace("\\\n", " ").splitlines()


@pytest.mark.timeout(1200)
def test_the_rehearsal_runs_as_it_is_written(tmp_path):
    commands = rehearsal()
    if importlib.util.find_spec("ray") is None:
        commands = [command for command in commands if "--engine ray" not in command]
    folder = tmp_path / "rehearsal"
    script = "\n".join(commands).replace("data/rehearsal", str(folder)).replace("--max_seconds 60", "--max_seconds 10")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-euc", script], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for sidecar in sorted((folder / "crawl").glob("*.instructions.jsonl")):
        header, *lines = map(json.loads, sidecar.read_text().splitlines())
        assert header["model"] == "qwen" and len(lines) == 100
        asked = [line for line in lines if line.get("dropped") != "left out: subset"]
        assert sum("instruction" in line for line in asked) >= 0.9 * len(asked)
    counts = json.loads((folder / "crawl/filter.json").read_text())
    assert counts["samples"] == 600 and not counts["broken"] and counts["marked"] < 300
    assert (folder / "crawl/report.html").stat().st_size > 10_000
    assert (folder / "train/region_predictor/model.safetensors").is_file()
    assert "5,000,000 samples" in done.stdout
