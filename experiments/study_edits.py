"""Edits test cases with the regions learned in an experiment's runs, scored as in the paper's tables.

    python experiments/study_edits.py configs/study/ablation.yaml --limit 200

It needs the folders of the runs, which study.py leaves in outputs/study/. Each run gets one small result file in
`{experiment}_edits/`, beside the folder of study.py; run the command again to do the missing ones.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track
from study import Experiment, run_logged

from regionedit.files import write_atomic

METRICS = ("clip_direction", "clip_text", "l1", "clip_image", "dino", "edit_success", "region_iou", "region_area")
"""CLIPdir, CLIPout, L1, CLIPimg and DINO of the paper's Table 4, with the CLIP of the metrics, which no loss uses; then
our own metrics."""


def edit(experiment: Experiment, variant: str, seed: int, limit: int, work: Path, results: Path) -> dict:
    """Evaluate one run on the first `limit` test cases, unless its result exists.

    Raises:
        RuntimeError: the evaluation failed; the message names its log.
    """
    file = results / f"{experiment.name}_edits" / f"{variant}-{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    run = work / experiment.name / f"{variant}-{seed}"
    command = ["evaluate.py", "--config", "configs/evaluate_rivals.yaml", "--limit", str(limit)]
    command += ["--region.checkpoint", str(run / "region_predictor"), "--out", str(run / "evaluation")]
    command += ["--baselines", "[]", "--edited_baselines", "[]"]
    run_logged(command, run / "evaluation.log")
    metrics = json.loads((run / "evaluation" / "summary.json").read_text())["metrics"]
    result = {
        "experiment": experiment.name,
        "variant": variant,
        "seed": seed,
        "command": " ".join(["python", *command]),
        "test": {name: round(metrics[name]["mean"], 4) for name in METRICS},
    }
    write_atomic(file, json.dumps(result, indent=1).encode())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="YAML file")
    parser.add_argument("--limit", type=int, default=200, help="number of test cases, the first ones")
    parser.add_argument("--work", type=Path, default=Path("outputs/study"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/study"), help="folder of the result files")
    parser.add_argument("--jobs", type=int, default=1, help="evaluations in parallel, each with one thread")
    args = parser.parse_args()
    experiment = Experiment.read(args.experiment)
    runs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = [pool.submit(edit, experiment, *each, args.limit, args.work, args.results) for each in runs]
        for future in track(waiting, description=experiment.name):
            future.result()


if __name__ == "__main__":
    main()
