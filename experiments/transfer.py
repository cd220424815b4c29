"""Measures whether a region learned through one generator also works with the others.

    python experiments/transfer.py --jobs 2

It generates stored proposals with every generator in configs/study/through.yaml, trains a region predictor on each set,
and lets every generator edit the first test cases with each of the regions. A finished part leaves a small file; run
the command again to do the missing ones. At the end it prints the table of docs/generators.md: the rows are the
generators used in training, the columns those that edit.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness import markdown
from study import Experiment, evaluate, made_once, options, run, run_all, run_logged

EDITORS = {  # name of the variant -> configuration that edits with the same generator
    "stable_diffusion": "configs/edit_inpaint_microworld.yaml",
    "instruct_pix2pix": "configs/edit_ip2p_microworld.yaml",
    "masked_token": "configs/edit_masked_token_microworld.yaml",
    "next_scale": "configs/edit_next_scale_microworld.yaml",
}


def learn(experiment: Experiment, variant: str, seed: int, work: Path, results: Path) -> dict:
    """Generate the variant's proposals, then train on them."""
    overrides = [*experiment.overrides, *experiment.variants[variant]]
    kept = {"--max_seconds", "--max_steps", "--log.validate_every_steps", "--data.validation_samples"}
    pairs = zip(overrides[::2], overrides[1::2], strict=True)
    given = [part for name, value in pairs if name not in kept for part in (name, value)]
    log = work / experiment.name / f"{variant}-{seed}" / "proposals.log"
    run_logged(["data_prep/make_proposals.py", "--config", experiment.base, *given], log)
    return run(experiment, variant, seed, work, results)


def edit(experiment: Experiment, variant: str, seed: int, limit: int, work: Path, results: Path) -> dict:
    """Edit the first `limit` test cases with every generator and one region, unless the result exists."""

    def make() -> dict:
        out = work / experiment.name / f"{variant}-{seed}"
        region = f"--mask_source learned --region.checkpoint {out / 'region_predictor'}"
        systems = {name: f"{config} {region}" for name, config in EDITORS.items() if name != "stable_diffusion"}
        _, summary = evaluate(out, limit, "--systems", json.dumps(systems))
        rows = summary["systems"]
        metrics = {name: rows[name if name in systems else "learned"]["metrics"] for name in EDITORS}
        return {
            "taught": variant,
            "seed": seed,
            "limit": limit,
            "region_iou": round(summary["metrics"]["region_iou"]["mean"], 4),
            "pointing": round(summary["metrics"]["pointing"]["mean"], 4),
        } | {
            score: {name: round(scores[score]["mean"], 4) for name, scores in metrics.items()}
            for score in ("edit_success", "outside_truth_change")
        }

    return made_once(results / "transfer" / f"{variant}-{seed}.json", make)


def table(results: list[dict]) -> str:
    """The Markdown table, with a row for each generator used in training."""
    rows = []
    for result in results:
        scores = [result["region_iou"], result["pointing"], *(result["edit_success"][name] for name in EDITORS)]
        rows.append([f"`{result['taught']}`", *(f"{score:.3f}".lstrip("0") for score in scores)])
    header = ("trained with proposals of", "region IoU", "pointing", *(f"`{name}` edits" for name in EDITORS))
    return markdown(header, rows)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--limit", type=int, default=200, help="number of test cases, the first ones")
    args = parser.parse_args()
    experiment = Experiment.read(Path("configs/study/through.yaml"))
    run_all(learn, experiment, args, title="learning")
    print(table(run_all(edit, experiment, args, args.limit, title="editing")))


if __name__ == "__main__":
    main()
