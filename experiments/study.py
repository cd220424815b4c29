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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import yaml
from harness import rounded, show, write_json
from pydantic import BeforeValidator, ValidationError
from pydantic.dataclasses import dataclass
from rich.progress import track

from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from regionedit.provenance import identify

SHOWN = ("iou/local", "iou_best/local", "pointing/local", "region_area", "instruction_swap_iou")


def _arguments(values: list) -> list[str]:
    """Values as a command line needs them: YAML's null and false keep their spelling."""
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


Arguments = Annotated[list[str], BeforeValidator(_arguments)]


@dataclass(frozen=True, config={"extra": "forbid"})
class Experiment:
    """One question and the runs that answer it: each variant of a base configuration with every seed.

    Args:
        overrides: for all variants, as on train.py's command line; `{seed}` stands for the run's seed.
        beside: runs of other experiments to compare with, `experiment/variant`.
    """

    name: str
    question: str
    base: str
    overrides: Arguments
    variants: dict[str, Arguments]
    seeds: list[int]
    beside: list[str]

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """Read a YAML file. Raises ValueError if keys are missing or unknown, or a value has another type."""
        found = yaml.safe_load(path.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"{path}: an experiment is a mapping with question, base, overrides, variants, ...")
        try:
            return cls(name=path.stem, **found)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise ValueError(f"{path}: {'; '.join(wrong)}") from error


def frozen_models(base: str, overrides: list[str]) -> dict[str, str]:
    """The first eight digits of each frozen model's SHA-256: results with different models are not comparable."""
    config = load_config(TrainConfig, base, overrides)
    encoders = config.encoders
    names = {"clip": encoders.clip, "instruction": encoders.instruction, "generator": config.generator.path}
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
    """Run one of the project's commands with one thread; its output goes to `log`, which a RuntimeError names."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        streams = {"stdout": file, "stderr": subprocess.STDOUT}
        done = subprocess.run([sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, **streams)
    if done.returncode:
        raise RuntimeError(f"{command[0]} stopped with exit code {done.returncode}; see {log}")


def evaluate(run: Path, limit: int, *more: str) -> tuple[list[str], dict]:
    """Edit the first `limit` test cases with a run's region; the command and the evaluation's summary.json."""
    command = ["evaluate.py", "--config", "configs/evaluate_regions.yaml", "--limit", str(limit)]
    command += ["--region.checkpoint", str(run / "region_predictor"), "--out", str(run / "evaluation")]
    command += ["--baselines", "[]", "--edited_baselines", "[]", *more]
    run_logged(command, run / "evaluation.log")
    return command, json.loads((run / "evaluation" / "summary.json").read_text())


def made_once(file: Path, make: Callable[[], dict]) -> dict:
    """The result in this file; if it does not exist, `make` makes the result and it is written."""
    if not file.is_file():
        write_json(file, make())
    return json.loads(file.read_text())


def run(experiment: Experiment, variant: str, seed: int, work: Path, results: Path) -> dict:
    """Train one variant with one seed, unless its result exists."""

    def make() -> dict:
        out = work / experiment.name / f"{variant}-{seed}"
        overrides = [*experiment.overrides, *experiment.variants[variant]]
        overrides = [value.replace("{seed}", str(seed)) for value in overrides]
        command = ["train.py", "--config", experiment.base, *overrides, "--seed", str(seed), "--out", str(out)]
        run_logged(command, out / "train.log")
        step, scores, curve = last_validation(out / "metrics.csv")
        return {
            "experiment": experiment.name,
            "variant": variant,
            "seed": seed,
            "command": " ".join(["python", *command]),
            "models": frozen_models(experiment.base, overrides),
            "steps": step,
            "validation": rounded(dict(sorted(scores.items()))),
            "curve": rounded(curve),
        }

    return made_once(results / experiment.name / f"{variant}-{seed}.json", make)


def run_all(
    function: Callable[..., dict], experiment: Experiment, args: argparse.Namespace, *more, title: str = ""
) -> list[dict]:
    """The results of `function(experiment, variant, seed, *more, work, results)`, `--jobs` of them in parallel. After
    an error, no further one starts."""
    runs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = [pool.submit(function, experiment, *each, *more, args.work, args.results) for each in runs]
        try:
            return [future.result() for future in track(waiting, description=title or experiment.name)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def options(description: str) -> argparse.ArgumentParser:
    """The options of every script that runs experiments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/study"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/study"), help="folder of the result files")
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel, each with one thread")
    return parser


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("experiments", type=Path, nargs="+", help="YAML files")
    args = parser.parse_args()
    for experiment in [Experiment.read(path) for path in args.experiments]:
        results = run_all(run, experiment, args)
        rows = {
            f"{result['variant']}, seed {result['seed']}": {"steps": result["steps"]}
            | {name: result["validation"].get(name) for name in SHOWN}
            for result in results
        }
        show(f"{experiment.name}: {experiment.question}", rows)


if __name__ == "__main__":
    main()
