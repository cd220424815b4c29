"""Edits with the regions that an experiment's runs have learned, scored as in the paper's tables.

    python data_prep/microworld/study_edits.py configs/study/ablation.yaml --limit 200

Needs the runs' folders (study.py leaves them in outputs/study/). One small result file a run, beside those of study.py,
in `{experiment}_edits/`; run the command again to do what is left.
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
"""CLIPdir, CLIPout, L1, CLIPimg and DINO of the paper's Table 4, by the judge CLIP that no loss has seen; and ours."""


def edit(experiment: Experiment, variant: str, seed: int, limit: int, work: Path, results: Path) -> dict:
    """Evaluate one run on the first `limit` test cases, unless its result is there already.

    Raises:
        RuntimeError: the evaluation failed; names its log.
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
    parser.add_argument("--limit", type=int, default=200, help="first test cases")
    parser.add_argument("--work", type=Path, default=Path("outputs/study"), help="runs")
    parser.add_argument("--results", type=Path, default=Path("docs/study"), help="small result files")
    parser.add_argument("--jobs", type=int, default=1, help="evaluations at a time, each with one thread")
    args = parser.parse_args()
    experiment = Experiment.read(args.experiment)
    runs = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = [pool.submit(edit, experiment, *each, args.limit, args.work, args.results) for each in runs]
        for future in track(waiting, description=experiment.name):
            future.result()


if __name__ == "__main__":
    main()
