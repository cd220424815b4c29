"""Pictures per second of training in two processes, compared with one; one thread each, same global batch.

    python -m benchmarks.two_processes [--steps 24]

The microworld's shipped models, new proposals at each step, gradients averaged by gloo. A ratio of 2 is perfect; half
of the ratio is the scaling efficiency. Each runs only once, so use a machine that does nothing else. A test in
tests/test_training.py checks that both log the same losses.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
from pathlib import Path

from benchmarks.harness import finish, options, pack_train, record, script

SAMPLES, EVERY = 256, 4
CHANGES = (
    "--config=configs/train_microworld.yaml",
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
    finish(script("train.py", *CHANGES, *more))
    with (out / "metrics.csv").open(newline="") as file:
        rates = [float(value) for _, name, value in csv.reader(file) if name == "train/images_per_second"]
    return statistics.median(rates[1:])


def main() -> None:
    steps = options(__doc__, steps=(24, 3 * EVERY, "steps of each")).parse_args().steps
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train = pack_train(folder, SAMPLES)
        one, two = (rate(train, folder / f"run{n}", n, steps) for n in (1, 2))
    record("two_processes", two, one, "pictures/s")


if __name__ == "__main__":
    main()
