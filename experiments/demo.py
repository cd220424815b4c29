"""Runs the whole demo: train a region predictor on captions, edit held-out pictures, measure: outputs/demo/report.html.

    python experiments/demo.py [--minutes 8]

The script times this machine for some seconds, announces how long the demo will take, and runs the other commands one
after another. If the whole demo would take longer than `--minutes`, it runs a smaller one, and the report says so. The
trained predictor depends on the chosen size only, never on the clock. After Ctrl-C, run it again to continue.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from regionedit.files import write_atomic

OUT = Path("outputs/demo")
MOST_PARTS = 8


@dataclass(frozen=True)
class Size:
    """How much a demo trains and measures.

    Args:
        samples: training pictures, each with captions and one proposal.
        searched: how many of them, the first ones, get a search of their regions.
        steps: training steps, 8 samples each.
        cases: held-out cases that are edited and scored.
        beside: how many of these cases, the first ones, the other editors edit as well.
    """

    samples: int
    searched: int
    steps: int
    cases: int
    beside: int

    @property
    def shard(self) -> int:
        """Samples in a shard: two shards are searched, by two processes; all processes share the proposals."""
        return self.searched // 2


SIZES = {
    "whole": Size(samples=2500, searched=500, steps=1500, cases=160, beside=30),
    "most": Size(samples=2025, searched=450, steps=1300, cases=140, beside=20),
    "half": Size(samples=1000, searched=200, steps=900, cases=100, beside=20),
    "quarter": Size(samples=600, searched=80, steps=600, cases=50, beside=10),
}

# Seconds on two cores of a Xeon at 2.3 GHz, in float32, where one proposal takes USUAL on one core. On a slower
# machine, proposals take as much longer as one measured proposal; the rest, which depends less on the vector unit,
# slows down half as much.
USUAL = 0.06
SEARCH = 15.0  # proposals that take as long as the search of one picture
START, PER_STEP, PER_EDIT = 12.0, 0.072, 0.28
SYSTEMS = 4  # other editors in configs/evaluate_demo.yaml


@dataclass(frozen=True)
class Plan:
    """The demo chosen for this machine, saved with the results so that a second run continues with the same one.

    Args:
        size: key of SIZES.
        parts: processes that generate proposals.
        one_proposal: seconds for one proposal on one core.
    """

    size: str
    parts: int
    one_proposal: float

    @property
    def seconds(self) -> list[float]:
        """Estimated seconds of each stage."""
        size, pairs = SIZES[self.size], min(self.parts, 4) / 2
        slower = (1 + self.one_proposal / USUAL) / 2
        edits = size.cases + SYSTEMS * size.beside
        return [
            START / 2 * slower,
            START * slower + SEARCH * self.one_proposal * size.searched / min(self.parts, 2),
            START * slower + self.one_proposal * size.samples / self.parts,
            (START + PER_STEP * size.steps / pairs) * slower,
            (1.5 * START + PER_EDIT * edits / pairs) * slower,
        ]

    @property
    def note(self) -> str:
        """A sentence for the report."""
        size = SIZES[self.size]
        learned = f"{size.samples:,} captioned pictures, {size.searched} of them searched"
        made = f"Learned from {learned}, in {size.steps:,} steps"
        if self.size == "whole":
            return f"{made}."
        whole = SIZES["whole"]
        return (
            f"{made}, because this machine is slow: the whole demo has {whole.samples:,} pictures and {whole.steps:,} "
            "steps, finds regions better and measures them on more cases."
        )


def proposal_seconds() -> float:
    """Measured seconds for one proposal of the demo's in-painter on one core of this machine, in a batch."""
    import torch

    from regionedit.command_line import load_config
    from regionedit.config import TrainConfig
    from regionedit.generators import load_generator

    torch.set_num_threads(1)
    generator = load_generator(load_config(TrainConfig, "configs/train_demo.yaml").generator)
    pictures_BCHW, mask_B1HW = torch.zeros(16, 3, 64, 64), torch.ones(16, 1, 64, 64)
    texts, seeds = ["a red circle on a plain gray background"] * 16, list(range(16))
    generator.propose(pictures_BCHW, mask_B1HW, texts, seeds)
    start = time.perf_counter()
    for _ in range(3):
        generator.propose(pictures_BCHW, mask_B1HW, texts, seeds)
    return (time.perf_counter() - start) / 48


def plan_for(one_proposal: float, cores: int, minutes: float) -> Plan:
    """The largest demo that this machine finishes in time, or the smallest if none does."""
    parts = max(1, min(cores, MOST_PARTS))
    plans = [Plan(size, parts, one_proposal) for size in SIZES]
    return next((plan for plan in plans if sum(plan.seconds) <= 60 * minutes), plans[-1])


def read_plan(minutes: float) -> Plan:
    """The plan of an interrupted run, or a new one."""
    path = OUT / "plan.json"
    if path.is_file():
        return Plan(**json.loads(path.read_text()))
    print("timing this machine ...", flush=True)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)  # not on macOS
    plan = plan_for(proposal_seconds(), len(cores), minutes)
    write_atomic(path, json.dumps(asdict(plan)).encode())
    return plan


def stages(plan: Plan) -> list[tuple[str, list[list[str]], dict[str, str]]]:
    """Title, commands to run in parallel, and environment variables of each stage."""
    size, data = SIZES[plan.size], Path("data/demo") / plan.size
    stored = ["--data.proposals", f"{data}/proposals", "--data.features", f"{data}/features"]
    config = ["--config", "configs/train_demo.yaml", "--data.train", f"{data}/train", *stored]
    first = f"{data}/train/{{00000..00001}}.tar"

    def pack(split: str, samples: int) -> list[str]:
        return ["data_prep/microworld/pack.py", "--split", split, "--samples", str(samples), "--out", f"{data}/{split}"]

    search = ["data_prep/search_regions.py", *config, "--data.train", first]
    proposals = ["data_prep/make_proposals.py", *config]
    train = ["train.py", *config, "--data.validation", f"{data}/validation", "--max_steps", str(size.steps)]
    evaluate = ["evaluate.py", "--config", "configs/evaluate_demo.yaml", "--data", f"{data}/test", "--note", plan.note]
    evaluate += ["--validation", f"{data}/validation", "--systems_limit", str(size.beside)]
    packs = [[*pack("train", size.samples), "--shard_size", str(size.shard)], pack("validation", 600)]
    return [
        ("pictures and captions", [*packs, pack("test", size.cases)], {}),
        ("search of regions", shares(search, plan.parts), {"OMP_NUM_THREADS": "1"}),
        ("proposals", shares(proposals, plan.parts), {"OMP_NUM_THREADS": "1"}),
        ("training", [train], {}),
        ("evaluation", [evaluate], {}),
    ]


def shares(command: list[str], parts: int) -> list[list[str]]:
    """The command once for each part of the shards."""
    return [[*command, "--parts", str(parts), "--part", str(part)] for part in range(parts)]


def run(commands: list[list[str]], variables: dict[str, str]) -> int:
    """Run the commands in parallel; returns 0 or the exit code of the first that failed, which stops the others."""
    running = [subprocess.Popen([sys.executable, *command], env=os.environ | variables) for command in commands]
    try:
        while any(process.poll() is None for process in running):
            if failed := next((process.returncode for process in running if process.returncode), 0):
                return failed
            time.sleep(0.2)
        return next((process.returncode for process in running if process.returncode), 0)
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait()


def duration(seconds: float) -> str:
    """A duration such as `3 min 20 s`, in steps of ten seconds."""
    tens = max(1, round(seconds / 10)) * 10
    return f"{tens // 60} min {tens % 60} s" if tens >= 60 else f"{tens} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="run a smaller demo if the whole one takes longer")
    minutes = parser.parse_args().minutes
    if minutes <= 0:
        parser.error("--minutes must be above 0")
    plan = read_plan(minutes)
    print(f"the {plan.size} demo, about {duration(sum(plan.seconds))} here. {plan.note}", flush=True)
    steps = list(zip(stages(plan), plan.seconds, strict=True))
    for number, ((title, commands, variables), seconds) in enumerate(steps, 1):
        left = sum(seconds for _, seconds in steps[number - 1 :])
        print(f"[{number}/{len(steps)}] {title}: about {duration(seconds)}, {duration(left)} to the end", flush=True)
        try:
            if code := run(commands, variables):
                print(f"demo.py: {title} failed, see above; run the same command to continue", file=sys.stderr)
                return code
        except KeyboardInterrupt:
            print("demo.py: stopped; run the same command to continue", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
