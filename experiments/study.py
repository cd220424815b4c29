"""Runs the experiments of configs/study/*.yaml: short trainings that differ in one setting each, scored on validation.

    python experiments/study.py configs/study/ablation.yaml --jobs 2

An experiment lists variants of one base configuration, each as overrides of `train.py`, and seeds. A finished run
leaves one small result file; run the command again to do the missing runs. Test cases are never used here.

Every run has one thread, so that `--jobs` of them, one for each core, do not slow one another down. The output of a run
is in `train.log` in its folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.files import write_atomic
from regionedit.provenance import identify

SHOWN = ("iou/local", "iou_best/local", "pointing/local", "region_area", "instruction_swap_iou")


@dataclass(frozen=True)
class Experiment:
    """One question and the runs that answer it.

    Args:
        name: file name of the YAML.
        question: the question, one sentence.
        base: training configuration from which all variants start.
        overrides: for all variants, as on train.py's command line; `{seed}` stands for the run's seed.
        variants: name -> overrides.
        seeds: each variant is run with every one.
        beside: runs of other experiments to compare with, `experiment/variant`.
    """

    name: str
    question: str
    base: str
    overrides: list[str]
    variants: dict[str, list[str]]
    seeds: list[int]
    beside: list[str]

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """Read a YAML file. Raises ValueError if keys are missing or unknown."""
        found = yaml.safe_load(path.read_text())
        wanted = {"question", "base", "overrides", "variants", "seeds", "beside"}
        if not isinstance(found, dict) or set(found) != wanted:
            given = sorted(found) if isinstance(found, dict) else type(found).__name__
            raise ValueError(f"{path}: an experiment has the keys {', '.join(sorted(wanted))}; this has {given}")
        settings = {name: _arguments(overrides) for name, overrides in found["variants"].items()}
        overrides = _arguments(found["overrides"])
        return cls(path.stem, found["question"], found["base"], overrides, settings, found["seeds"], found["beside"])


def _arguments(values: list) -> list[str]:
    """Values as a command line needs them: YAML's null and false keep their spelling."""
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def frozen_models(base: str, overrides: list[str]) -> dict[str, str]:
    """The first eight digits of each frozen model's SHA-256: results with different models are not comparable."""
    config = load_config(TrainConfig, base, overrides)
    names = {
        "clip": config.encoders.clip,
        "instruction": config.encoders.instruction,
        "generator": config.generator.path,
    }
    return {name: (identify(path).get("sha256") or path)[:8] for name, path in names.items()}


def last_validation(metrics: Path) -> tuple[int, dict[str, float], list[dict[str, float]]]:
    """The last validated step, its scores, and the curve: for each step the first three of `SHOWN`."""
    by_step: dict[int, dict[str, float]] = {}
    with metrics.open(newline="") as file:
        for row in csv.reader(file):
            if row[1].startswith("validation/"):
                by_step.setdefault(int(row[0]), {})[row[1].removeprefix("validation/")] = float(row[2])
    if not by_step:
        raise ValueError(f"{metrics}: the run was never validated; lower log.validate_every_steps")
    step = max(by_step)
    curve = [{"step": s} | {name: by_step[s].get(name) for name in SHOWN[:3]} for s in sorted(by_step)]
    return step, by_step[step], curve


def run_logged(command: list[str], log: Path) -> None:
    """Run one of the project's commands with one thread and write its output to `log`.

    Raises:
        RuntimeError: the command failed; the message names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        streams = {"stdout": file, "stderr": subprocess.STDOUT}
        done = subprocess.run([sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, **streams)
    if done.returncode:
        raise RuntimeError(f"{command[0]} stopped with exit code {done.returncode}; see {log}")


def run(experiment: Experiment, variant: str, seed: int, work: Path, results: Path) -> dict:
    """Train one variant with one seed, unless its result exists."""
    file = results / experiment.name / f"{variant}-{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    out = work / experiment.name / f"{variant}-{seed}"
    overrides = [*experiment.overrides, *experiment.variants[variant]]
    overrides = [value.replace("{seed}", str(seed)) for value in overrides]
    command = ["train.py", "--config", experiment.base, *overrides, "--seed", str(seed), "--out", str(out)]
    run_logged(command, out / "train.log")
    step, scores, curve = last_validation(out / "metrics.csv")
    result = {
        "experiment": experiment.name,
        "variant": variant,
        "seed": seed,
        "command": " ".join(["python", *command]),
        "models": frozen_models(experiment.base, overrides),
        "steps": step,
        "validation": {name: round(value, 4) for name, value in sorted(scores.items())},
        "curve": [{k: v if v is None else round(v, 4) for k, v in point.items()} for point in curve],
    }
    write_atomic(file, json.dumps(result, indent=1).encode())
    return result


def show(experiment: Experiment, results: list[dict], console: Console) -> None:
    """One row per run."""
    table = Table("variant", "seed", "steps", *SHOWN, title=f"{experiment.name}: {experiment.question}")
    for result in results:
        scores = (result["validation"].get(name) for name in SHOWN)
        cells = ("-" if score is None else f"{score:.3f}" for score in scores)
        table.add_row(result["variant"], str(result["seed"]), str(result["steps"]), *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", type=Path, nargs="+", help="YAML files")
    parser.add_argument("--work", type=Path, default=Path("outputs/study"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/study"), help="folder of the result files")
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel, each with one thread")
    args = parser.parse_args()
    experiments = [Experiment.read(path) for path in args.experiments]
    with ThreadPoolExecutor(args.jobs) as pool:
        for experiment in experiments:
            runs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
            waiting = [pool.submit(run, experiment, *each, args.work, args.results) for each in runs]
            try:
                results = [future.result() for future in track(waiting, description=experiment.name)]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            show(experiment, results, Console())


if __name__ == "__main__":
    main()
