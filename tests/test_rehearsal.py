"""The rehearsal of a paper's tables: killed, and run again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.rehearsal import PROTOCOLS, SYSTEMS, command

ROWS = [*SYSTEMS, "blurred"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:.*test set", "ignore:.*CompBench"),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """The tables of a rehearsal that was killed while its second benchmark was edited."""
    folder = tmp_path_factory.mktemp("rehearsal")
    typed, out = command(folder), folder / "tables"
    running = subprocess.Popen(typed, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list((out / "emu_edit").glob("learned/records/*.json")):
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert (out / "microworld/comparison.md").is_file() and not (out / "emu_edit/comparison.md").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/records/*.json")}
    assert subprocess.run(typed, stdout=subprocess.DEVNULL).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished cases were edited again"
    return out


@pytest.mark.parametrize("benchmark", PROTOCOLS)
def test_each_protocol_has_its_table(tables, benchmark):
    text = (tables / benchmark / "comparison.md").read_text()
    assert f"protocol {PROTOCOLS[benchmark]}: ".replace("_", r"\_") in text and "Paired differences" in text
    frame = pd.read_csv(tables / benchmark / "comparison.csv")
    assert [name.removesuffix(" (no captions)") for name in frame.loc[frame["kind"] == "measured", "system"]] == ROWS
    assert (frame["kind"] == "identity").sum() == 1
    published, known = frame[frame["kind"] == "published"], benchmark != "microworld"
    assert (len(published) > 4) == known and published["source"].notna().all()
    assert ("REHEARSAL" in text) == known
    assert r"\begin{tabular}" in (tables / benchmark / "comparison.tex").read_text()
