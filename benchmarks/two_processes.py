"""Pictures per second of training in two processes, compared with one; one thread each, same global batch.

    python -m benchmarks.two_processes [--steps 24]

The microworld's shipped models, new proposals at each step, gradients averaged by gloo. A ratio of 2 is perfect; half
of the ratio is the scaling efficiency. Each runs only once, so use a machine that does nothing else. A test in
tests/test_training.py checks that both log the same losses.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import at_least, options
from benchmarks.results import record

SAMPLES, EVERY = 256, 4
CHANGES = (
    "--data.proposals=null",
    "--data.validation=null",
    "--max_seconds=0",
    f"--log.every_steps={EVERY}",
    "--log.pictures_every_steps=100000",
    "--log.checkpoint_every_steps=100000",
)


def rate(data: Path, out: Path, processes: int, steps: int) -> float:
    """Median over the intervals between two lines of the log, without the first interval."""
    more = [f"--data.train={data}", f"--out={out}", f"--max_steps={steps}", f"--trainer.devices={processes}"]
    more += ["--trainer.strategy=ddp"] * (processes > 1)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "train.py", "--config", "configs/train_microworld.yaml", *CHANGES, *more]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    with (out / "metrics.csv").open(newline="") as file:
        rates = [float(value) for _, name, value in csv.reader(file) if name == "train/images_per_second"]
    return statistics.median(rates[1:])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=at_least(3 * EVERY), default=24, help=f"steps of each, at least {3 * EVERY}")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pack = ("--split", "train", "--samples", str(SAMPLES), "--out", str(folder / "train"))
        subprocess.run([sys.executable, "data_prep/microworld/pack.py", *pack], check=True, stdout=subprocess.DEVNULL)
        one, two = (rate(folder / "train", folder / f"run{n}", n, steps) for n in (1, 2))
    record("two_processes", two, one, "pictures/s")


if __name__ == "__main__":
    main()
