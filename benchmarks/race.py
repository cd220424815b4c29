"""Time to a region that is found, from scratch on the microworld: ours beside the paper taken literally. Hours long.

    make microworld-data && python -m benchmarks.race [--cap 1200] [--threads 1]

Every system trains by train.py on data/microworld/train until validation says IoU .50 and pointing .80 (mean over
replace, recolour and remove, 256 validation samples), or until the cap of seconds. Validation looks at truth; training
never does. Making stored proposals (of 4,000 samples) counts. The literal baseline runs with several settings of
regularisers and learning rate, the best of which counts; if none arrives, its time is the cap.

`race`: seconds of ours, the quickest of its systems, beside those of the baseline. Target: at most a fifth, and at most
two minutes. Not part of `make bench`.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import record

CONFIG = "configs/train_microworld.yaml"
IOU, POINTING = 0.50, 0.80
EVERY = ("--log.validate_every_steps=50", "--log.checkpoint_every_steps=100000", "--log.pictures_every_steps=100000")
COMPOSITE = ("--data.proposals=null", "--step.proposal_mask=everything", "--generator.steps=4")
STORED_SAMPLES = 4000
"""Of the training set; each gets one stored proposal."""

OURS = {
    "stored": (),
    "composite": COMPOSITE,
    "warm start, composite": (*COMPOSITE, "--step.warm_steps=100", "--loss.region_contrast=1"),
}
LITERAL = (
    "--data.proposals=null",
    "--step.gradient=full",
    "--step.proposal_mask=predicted",
    "--generator.masked_image=latent",
    "--generator.steps=2",
    "--savers.frozen_convolutions=false",
)
BASELINES = {
    "literal": LITERAL,
    "literal, entropy -2": (*LITERAL, "--loss.area=0.5", "--loss.entropy=-2", "--loss.entropy_until=0"),
    "literal, lr 3e-4": (*LITERAL, "--loss.area=0.5", "--loss.entropy=-2", "--optimizer.lr=3e-4"),
    "literal, no area": (*LITERAL, "--loss.area=0", "--loss.entropy=-1", "--loss.clip_structure=3"),
}
"""The paper gives no weights. Two steps and these regularisers are the best that were found for the full gradient."""


def run(changes: tuple[str, ...], cap: float, threads: int, folder: Path) -> tuple[float, float, float]:
    """Seconds until both are reached, or the cap; best IoU and pointing on the way. Proposals are made first."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    if "--data.proposals=null" not in changes:
        pack = ("--split", "train", "--samples", str(STORED_SAMPLES), "--out", str(folder / "train"))
        subprocess.run([sys.executable, "data_prep/microworld/pack.py", *pack], check=True, stdout=subprocess.DEVNULL)
        changes = (*changes, f"--data.train={folder / 'train'}", f"--data.proposals={folder / 'proposals'}")
        parts = [
            subprocess.Popen(
                [sys.executable, "data_prep/make_proposals.py", "--config", CONFIG, *changes]
                + ["--parts", str(threads), "--part", str(part)],
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
            )
            for part in range(threads)
        ]
        if any([part.wait() for part in parts]):
            raise SystemExit("race.py: make_proposals.py failed")
    limits = (f"--max_seconds={cap}", f"--out={folder / 'run'}", *EVERY)
    process = subprocess.Popen(
        [sys.executable, "train.py", "--config", CONFIG, *changes, *limits], env=environment, stdout=subprocess.DEVNULL
    )
    found = False
    while not found and process.poll() is None and time.monotonic() - began < cap:
        time.sleep(1)
        *_, found = scores(folder / "run" / "metrics.csv")
    seconds = time.monotonic() - began if found else cap
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    elif process.returncode:
        raise SystemExit(f"race.py: train.py ended with {process.returncode}; see above")
    process.wait()
    iou, pointing, _ = scores(folder / "run" / "metrics.csv")
    return seconds, iou, pointing


def scores(metrics: Path) -> tuple[float, float, bool]:
    """The best IoU and pointing so far, and whether one validation had both."""
    if not metrics.is_file():
        return 0.0, 0.0, False
    found: dict[str, dict[str, float]] = {"iou/local": {}, "pointing/local": {}}
    with metrics.open(newline="") as file:
        for step, name, value in (row for row in csv.reader(file) if len(row) == 3):
            if name.removeprefix("validation/") in found:
                found[name.removeprefix("validation/")][step] = float(value)
    iou, pointing = found.values()
    both = any(iou[step] >= IOU and pointing.get(step, 0) >= POINTING for step in iou)
    return max(iou.values(), default=0.0), max(pointing.values(), default=0.0), both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap", type=float, default=1200, help="seconds after which a system is stopped")
    parser.add_argument("--threads", type=int, default=1, help="of every process")
    given = parser.parse_args()
    if given.cap <= 0 or given.threads < 1:
        parser.error("--cap must be above 0 and --threads at least 1")
    if not Path("data/microworld/train").is_dir():
        parser.error("data/microworld/train is not there; run `make microworld-data`")
    quickest = {}
    for side, systems in (("ours", OURS), ("baseline", BASELINES)):
        for name, changes in systems.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, iou, pointing = run(changes, given.cap, given.threads, Path(folder))
            print(f"{name}: {seconds:.0f} s, best IoU {iou:.3f}, best pointing {pointing:.3f}", flush=True)
            quickest[side] = min(seconds, quickest.get(side, given.cap))
    arrived = "" if quickest["baseline"] < given.cap else ", the baseline did not arrive"
    record("race", quickest["ours"], quickest["baseline"], f"s to IoU {IOU} and pointing {POINTING}{arrived}")


if __name__ == "__main__":
    main()
