"""Writes the study's tables and figures from its result files: docs/results.md and docs/figures/.

    python experiments/study_report.py

It reads docs/study/ (experiments by study.py, measurements by gradient_paths.py, mask_quality.py and dissect.py) and
configs/study/. It trains nothing; only the last figure loads the shipped predictor.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from pathlib import Path

import figures
import matplotlib
import numpy as np
import pandas as pd
import torch
from dissect import CONFIG, KINDS, probabilities
from harness import Rows, cells, markdown
from known_edits import KnownEdits, known_edits
from landscape import by_mask
from matplotlib.figure import Figure
from study import SHOWN, Experiment
from study_edits import METRICS
from watch_regions import look_alikes

from regionedit import masks
from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig
from regionedit.encoders import load_encoders
from regionedit.files import write_atomic
from regionedit.microworld.scene import COLORS
from regionedit.region_predictor import RegionPredictor

DOCS, STUDY = Path("docs"), Path("docs/study")
HEADINGS = ("IoU", "IoU, best threshold", "pointing", "area", "instruction swap")
INTRODUCTION = """# Results of the study

Written by `python experiments/study_report.py` from the result files in [study/](study/). [learning.md](learning.md)
interprets them.

**All results but those of `teacher` are of earlier models and an earlier predictor** of one block, with proposals
from pure noise; [measured.md](measured.md) has the shipped ones. The base configurations have changed since, so the
commands below, run today, give other numbers. Frozen models are identified by the first digits of their SHA-256;
results with different frozen models cannot be compared.

Trained variants are scored on 1,000 validation samples. IoU and pointing are over replace, recolour and remove. `area`
is the mean of P. `instruction swap` is the IoU between the regions for two different instructions on the same picture
(lower is better). Where there are several seeds, scores are the mean and half of the 95 % interval (Student's t).
"""


def results_of(folder: Path, run: str) -> list[dict]:
    """The results of `experiment/variant`, one for each seed."""
    experiment, variant = run.split("/")
    return [json.loads(file.read_text()) for file in sorted((folder / experiment).glob(f"{variant}-[0-9]*.json"))]


def runs_of(experiment: Experiment, folder: Path) -> dict[str, list[dict]]:
    """Variant -> results of its seeds, runs to compare with first; variants without results are left out."""
    names = {run.replace("/", ": "): run for run in experiment.beside}
    names |= {variant: f"{experiment.name}/{variant}" for variant in experiment.variants}
    by_name = {name: results_of(folder, run) for name, run in names.items()}
    return {name: results for name, results in by_name.items() if results}


def cell(values: list[float]) -> str:
    """The mean, with half of the 95 % interval if there are several seeds; `-` if nothing was measured."""
    if not values:
        return "-"
    mean, half = figures.interval(values)
    return f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def table(what: str, rows: Rows) -> str:
    """A Markdown table with a line for each row; `what` is the title of their names."""
    header = (what, *(column.replace("_", " ") for column in next(iter(rows.values()))))
    return markdown(header, ([name, *cells(row)] for name, row in rows.items()))


def section(*parts: str) -> str:
    return "\n\n".join(parts)


def experiment_section(experiment: Experiment, runs: dict[str, list[dict]]) -> str:
    """Question, table, figure, and the command that produced them."""
    rows = []
    for name, results in runs.items():
        values = ([r["validation"][score] for r in results if score in r["validation"]] for score in SHOWN)
        steps = "-".join(sorted({str(result["steps"]) for result in results}))
        rows.append([name.replace("_", " "), str(len(results)), steps, *(cell(v) for v in values)])
    models = {json.dumps(r["models"]): r["models"] for results in runs.values() for r in results}
    model_names = [", ".join(f"{name} {digits}" for name, digits in digests.items()) for digests in models.values()]
    return section(
        f"## {experiment.question}",
        markdown(("variant", "seeds", "steps", *HEADINGS), rows),
        f"![{experiment.name}](figures/{experiment.name}.svg)",
        f"`python experiments/study.py configs/study/{experiment.name}.yaml` (seeds "
        f"{', '.join(map(str, experiment.seeds))}; base `{experiment.base}`; `{' '.join(experiment.overrides)}`);"
        f" frozen models: {'; and: '.join(model_names)}",
    )


def edits_section(experiment: Experiment, folder: Path) -> str:
    """The same runs by the edits made with their regions; empty if study_edits.py has not been run."""
    rows = []
    for variant in experiment.variants:
        results = results_of(folder, f"{experiment.name}_edits/{variant}")
        if results:
            scores = (cell([result["test"][metric] for result in results]) for metric in METRICS)
            rows.append([variant.replace("_", " "), str(len(results)), *scores])
    if not rows:
        return ""
    return section(
        markdown(("edits with the region", "seeds", *(metric.replace("_", " ") for metric in METRICS)), rows),
        f"`python experiments/study_edits.py configs/study/{experiment.name}.yaml` (first test cases, all "
        "operations; CLIP scores use the CLIP of the metrics)",
    )


def gradient_paths_section(paths: dict[str, dict[str, dict[str, float]]]) -> str:
    """The direction of each gradient path back to the mask, before any training."""
    return section(
        "## Where does the gradient point before training?",
        table("path", {name: by_mask(row) for name, row in paths.items()}),
        "-dL/dm of the CLIP losses at a constant mask m. `cosine of seeds`: cosine of the gradients for two noise "
        "seeds of the generator, after subtracting the mean of each. `size`: mean absolute gradient.",
        "`python experiments/gradient_paths.py` (192 validation edits; two steps)",
    )


def mask_quality_section(rows: dict[str, dict[str, float]]) -> str:
    return section(
        "## How good must the mask of an edit be?",
        table("mask", rows),
        "![mask quality](figures/mask_quality.svg)",
        "`python experiments/mask_quality.py` (384 validation edits; `configs/evaluate_regions.yaml`)",
    )


def failure_section(rows: pd.DataFrame, ceiling: pd.DataFrame) -> str:
    """The region by what may make a case hard, compared with the same predictor trained with masks."""
    body, bound = {}, figures.failure_groups(ceiling)
    for name, group in figures.failure_groups(rows).items():
        pointing = [cell(g["pointing"].dropna().tolist()).split(" ")[0] for g in (group, bound[name])]
        body[name] = {
            "number": len(group),
            "IoU": cell(group["iou"].tolist()),
            "IoU with masks": cell(bound[name]["iou"].tolist()),
            "pointing": pointing[0],
            "pointing with masks": pointing[1],
            "area": float(group["region_area"].mean()),
            "true area": float(group["true_area"].mean()),
        } | {kind: f"{(group['failure'] == kind).mean():.0%}" for kind in KINDS}
    return section(
        "## Where does the region fail?",
        table("cases", body),
        "`with masks`: the same predictor trained with masks. The last four columns are the share of cases with an "
        "IoU below 0.3, by kind of failure. From the row `1 object` on, only replace, recolour and remove count.",
        "![failures](figures/failures.svg)",
        "![region sizes](figures/region_sizes.svg)",
        "![several instructions](figures/several_instructions.png)",
        "`python experiments/dissect.py` (1,200 test edits; `configs/evaluate_regions.yaml`), and with "
        "`--checkpoint outputs/ceiling/region_predictor` of `train_ceiling.py`",
    )


def cells_section(groups: dict[str, dict[str, float]]) -> str:
    """Which cells the region contains."""
    return section(
        "## Which cells does the region contain?",
        table("neighbours", groups),
        "Share of cells inside the region, by the share of a cell that the true region covers; only replace, "
        "recolour and remove. A cell belongs to the true region above 25 %. `ranked`: IoU of the most probable "
        "cells, as many as the true region has.",
        "`python experiments/dissect.py --cells docs/study/cells.json`",
    )


def several_instructions(config: EvaluateConfig) -> Figure:
    """The shipped region for one instruction on each object of five test pictures that contain look-alikes."""
    clip, instruction_encoder = load_encoders(config.encoders)
    predictor = RegionPredictor.from_pretrained(config.region.checkpoint)
    crowded = known_edits("test", 0, range(200))
    rows = []
    for index, edit in enumerate(crowded.edits):
        objects = edit.source.things
        colors, shapes = {t.color for t in objects}, {t.shape for t in objects}
        if len(objects) < 3 or len(colors) == len(shapes) == len(objects):
            continue
        new_color = next(color for color in COLORS if color not in colors)
        instructions = [f"make the {t.color} {t.shape} {new_color}" for t in objects]
        known = crowded.rows([index] * len(instructions)).with_instructions(instructions)
        probability_BN = probabilities(predictor, clip, instruction_encoder, known)
        maps_BHW = masks.upsample(probability_BN, clip.grid, (64, 64), "bilinear")[:, 0].numpy()
        picture_HWC = (known.source_BCHW[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        rows.append((picture_HWC, "", list(zip(instructions, maps_BHW, strict=True))))
        if len(rows) == 5:
            break
    return figures.of_regions(rows)


def regions_over_time(known: KnownEdits, recorded: dict[str, list[list[float]]]) -> Figure:
    """The regions of a few pictures during training, as recorded by watch_regions.py."""
    size = tuple(known.source_BCHW.shape[-2:])
    pictures_BHWC = (known.source_BCHW.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    maps = {}
    for step, probability_BN in recorded.items():
        p_BN = torch.tensor(probability_BN)
        maps[step] = masks.upsample(p_BN, math.isqrt(p_BN.shape[1]), size, "bilinear")[:, 0].numpy()
    rows = [
        (picture_HWC, instruction, [(f"step {int(step):,}", map_BHW[b]) for step, map_BHW in maps.items()])
        for b, (picture_HWC, instruction) in enumerate(zip(pictures_BHWC, known.instructions, strict=True))
    ]
    return figures.of_regions(rows)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write SVG and PNG; the same numbers give the same bytes."""
    for form, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 110})):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(buffer, format=form, **options)
        write_atomic(folder / f"{name}.{form}", buffer.getvalue())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder, sections = DOCS / "figures", [INTRODUCTION]
    for path in sorted(Path("configs/study").glob("*.yaml")):
        experiment = Experiment.read(path)
        runs = runs_of(experiment, STUDY)
        if set(runs) & set(experiment.variants):
            sections += [experiment_section(experiment, runs), edits_section(experiment, STUDY)]
            save(figures.of_runs(runs), folder, experiment.name)
    recorded = json.loads((STUDY / "regions_over_time.json").read_text())
    save(regions_over_time(look_alikes(), recorded), folder, "regions_over_time")
    names = ("mask_quality", "cells", "gradient_paths")
    quality, groups, paths = (json.loads((STUDY / f"{name}.json").read_text()) for name in names)
    save(figures.of_mask_quality(quality), folder, "mask_quality")
    tables = (pd.read_csv(STUDY / f"{name}.csv") for name in ("regions", "regions_ceiling"))
    rows, ceiling = (rows.fillna({"failure": ""}) for rows in tables)
    save(figures.of_failures(rows), folder, "failures")
    save(figures.of_region_sizes(rows), folder, "region_sizes")
    save(several_instructions(load_config(EvaluateConfig, CONFIG[0])), folder, "several_instructions")
    sections += [gradient_paths_section(paths), mask_quality_section(quality)]
    sections += [failure_section(rows, ceiling), cells_section(groups)]
    write_atomic(DOCS / "results.md", ("\n\n".join(filter(None, sections)) + "\n").encode())


if __name__ == "__main__":
    main()
