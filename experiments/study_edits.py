"""Edits test cases with the regions learned in an experiment's runs, scored as in the paper's tables.

    python experiments/study_edits.py configs/study/ablation.yaml --limit 200

It needs the folders of the runs, which study.py leaves in outputs/study/. Each run gets one small result file in
`{experiment}_edits/`, beside the folder of study.py; run the command again to do the missing ones.
"""

from __future__ import annotations

from pathlib import Path

from study import Experiment, evaluate, made_once, options, run_all

METRICS = ("clip_direction", "clip_text", "l1", "clip_image", "dino", "edit_success", "region_iou", "region_area")
"""CLIPdir, CLIPout, L1, CLIPimg and DINO of the paper's Table 4, with the CLIP of the metrics, which no loss uses; then
our own metrics."""


def edit(experiment: Experiment, variant: str, seed: int, limit: int, work: Path, results: Path) -> dict:
    """Evaluate one run on the first `limit` test cases, unless its result exists."""

    def make() -> dict:
        command, summary = evaluate(work / experiment.name / f"{variant}-{seed}", limit)
        return {
            "experiment": experiment.name,
            "variant": variant,
            "seed": seed,
            "command": " ".join(["python", *command]),
            "test": {name: round(summary["metrics"][name]["mean"], 4) for name in METRICS},
        }

    return made_once(results / f"{experiment.name}_edits" / f"{variant}-{seed}.json", make)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("experiment", type=Path, help="YAML file")
    parser.add_argument("--limit", type=int, default=200, help="number of test cases, the first ones")
    args = parser.parse_args()
    run_all(edit, Experiment.read(args.experiment), args, args.limit)


if __name__ == "__main__":
    main()
