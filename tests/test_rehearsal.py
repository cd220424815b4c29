"""The rehearsal of a paper's tables: killed, run again, and each cell computed from its rows with pandas and numpy."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

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


@pytest.mark.parametrize("benchmark", PROTOCOLS)
def test_every_cell_can_be_computed_from_the_rows(tables, benchmark):
    protocol = tables.parent / "protocols" / f"{PROTOCOLS[benchmark]}.yaml"
    columns = yaml.safe_load(protocol.read_text())["columns"]
    frame = pd.read_csv(tables / benchmark / "comparison.csv")
    checked = 0
    for number, system in enumerate(ROWS):
        rows = pd.read_parquet(tables / benchmark / system / "cases.parquet")
        for title, metric in columns.items():
            if metric not in rows or title not in frame:
                continue
            values = rows[metric]
            if metric.startswith(("region_", "pointing")):
                values = values[rows["operation"].isin(["replace", "recolour", "remove"])]
            values = values.dropna().to_numpy()
            if not len(values):
                continue
            assert frame.loc[number, title] == pytest.approx(values.mean(), abs=1e-9)
            assert frame.loc[number, f"{title} n"] == len(values)
            if len(values) > 5:
                drawn = np.random.default_rng(1).choice(values, (4000, len(values))).mean(1)
                bounds = frame.loc[number, [f"{title} low", f"{title} high"]].to_numpy(float)
                width = np.ptp(np.percentile(drawn, [2.5, 97.5]))
                levels = np.unique(values)  # of a few levels, a bound may be one step off
                step = np.ptp(values) / len(values) if len(levels) < 4 else 1e-6
                assert bounds == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.15 * width + step)
            checked += 1
    assert checked > 2 * len(ROWS)
