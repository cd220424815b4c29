"""Time to train a region predictor from scratch on the microworld: ours compared with the paper taken literally.

    make microworld-data && python -m benchmarks.race [--cap 1200] [--threads 2]

Both train with train.py until validation reaches IoU .50 and pointing .80 (mean over replace, recolour and remove, 256
validation samples), or until the cap in seconds. Validation uses the true regions, and its time counts; training never
uses them. Ours learns from stored proposals for 3,000 pictures, made in three denoising steps. The time to make them
counts; the time to pack the pictures does not, because the baseline's pictures are packed as well. The baseline uses
the best weights and learning rate that `configs/study/literal_weights.yaml` compares. The time of a system that does
not reach the scores is the cap.

`race`: seconds of ours compared with the baseline's. Target: at most a fifth, and at most two minutes.
"""

from __future__ import annotations

import csv
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.harness import finish, options, pack_train, record, script

IOU, POINTING = 0.50, 0.80
SAMPLES, SHARD = 3000, 250  # shards that two processes share equally
OURS = (
    "--config=configs/train_demo.yaml",
    "--max_steps=700",
    "--loss.region=0",
    "--data.features=null",
    "--loss.area=0.6",
    "--loss.entropy=-1.6",
)
LITERAL = (
    "--config=configs/train_microworld.yaml",
    "--data.proposals=null",
    "--step.gradient=full",
    "--step.proposal_mask=predicted",
    "--generator.masked_image=latent",
    "--generator.num_inference_steps=2",
    "--generator.strength=1",
    "--memory.frozen_convolutions=false",
    "--loss.area=0.5",
    "--loss.entropy=-2",
)
"""The paper gives no loss weights, learning rate or number of steps."""
MEASURED = (
    "--data.validation=data/microworld/validation",
    "--data.validation_samples=256",
    "--log.validate_every_steps=100",
    "--log.checkpoint_every_steps=100000",
    "--log.pictures_every_steps=100000",
)


def run_ours(cap: float, threads: int, folder: Path) -> tuple[float, float, float]:
    """As `race_of`; the time includes making the proposals."""
    train = pack_train(folder, SAMPLES, SHARD)
    changes = (*OURS, f"--data.train={train}", f"--data.proposals={folder / 'proposals'}")
    began = time.monotonic()
    parts = [(f"--parts={threads}", f"--part={part}") for part in range(threads)]
    finish(*[script("data_prep/make_proposals.py", *changes, *part) for part in parts])
    return race_of(changes, began, cap, threads, folder / "run")


def run_literal(cap: float, threads: int, folder: Path) -> tuple[float, float, float]:
    """As `race_of`."""
    return race_of((*LITERAL, f"--max_seconds={cap}"), time.monotonic(), cap, threads, folder / "run")


def race_of(changes: tuple[str, ...], began: float, cap: float, threads: int, out: Path) -> tuple[float, float, float]:
    """Train until one validation reaches both scores. Returns seconds since `began`, or the cap; best IoU, pointing."""
    process = script("train.py", *changes, *MEASURED, f"--out={out}", threads=threads)
    found = False
    while not found and process.poll() is None and time.monotonic() - began < cap:
        time.sleep(1)
        *_, found = scores(out / "metrics.csv")
    seconds = time.monotonic() - began if found else cap
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait()
    else:
        finish(process)
    iou, pointing, _ = scores(out / "metrics.csv")
    return seconds, iou, pointing


def scores(metrics: Path) -> tuple[float, float, bool]:
    """The best IoU and pointing so far, and whether one validation reached both."""
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
    parser = options(__doc__, threads=(2, 1, "cores to use"))
    parser.add_argument("--cap", type=float, default=1200, help="seconds after which a system is stopped")
    given = parser.parse_args()
    if given.cap <= 0:
        parser.error("--cap must be above 0")
    if not Path("data/microworld/train").is_dir():
        parser.error("data/microworld/train does not exist; run `make microworld-data`")
    seconds = {}
    for name, run in (("stored", run_ours), ("literal", run_literal)):
        with tempfile.TemporaryDirectory() as folder:
            seconds[name], iou, pointing = run(given.cap, given.threads, Path(folder))
        print(f"{name}: {seconds[name]:.0f} s, best IoU {iou:.3f}, best pointing {pointing:.3f}", flush=True)
    late = "".join(f", {name} did not arrive" for name in seconds if seconds[name] >= given.cap)
    record("race", seconds["stored"], seconds["literal"], f"s to IoU {IOU} and pointing {POINTING}{late}")


if __name__ == "__main__":
    main()
