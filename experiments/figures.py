"""The study's figures: runs of an experiment, and measurements of the shipped model.

Every function returns a matplotlib figure; `study_report.py` writes them. The colours are those of Okabe and Ito, which
colour-blind readers can distinguish.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"
PANELS = {
    "iou/local": "region IoU (P > 0.5)",
    "iou_best/local": "region IoU, best threshold",
    "pointing/local": "pointing",
}
FAILURES = {"empty": BLUE, "elsewhere": RED, "too large": ORANGE, "too small": GREEN}
TITLE_WIDTH = 32  # characters in a line above a small picture
RADII = (5.5, 8, 10, 12, 14.5)  # class limits of an object's radius, in pixels


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t); the half-width is NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def of_runs(runs: dict[str, list[dict]]) -> Figure:
    """One row for each variant, with a dot for the validation score of each of its results, and a bar at the mean."""
    figure = Figure(figsize=(10, 0.9 + 0.32 * len(runs)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (score, title) in zip(panels, PANELS.items(), strict=True):
        for row, results in enumerate(runs.values()):
            values = [result["validation"][score] for result in results if score in result["validation"]]
            axes.plot(values, [row] * len(values), "o", color=BLUE, alpha=0.6, markersize=5)
            if len(values) > 1:
                axes.plot(np.mean(values), row, "|", color=RED, markersize=16, markeredgewidth=2)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(runs)), [name.replace("_", " ") for name in runs])
    panels[0].set_ylim(len(runs) - 0.5, -0.5)
    return figure


def of_mask_quality(rows: dict[str, dict[str, float]]) -> Figure:
    """The effect of known errors of the mask: success rate, and distance to the true result."""
    operations = [score for score in next(iter(rows.values())) if score.startswith("success/")]
    panels = {
        "edit success": [(score, score.removeprefix("success/")) for score in operations],
        "mean absolute difference": [
            ("l1_to_target", "L1 to the true result"),
            ("change_outside_truth", "change outside the true region"),
        ],
    }
    colors = ((BLUE, ORANGE, GREEN), (RED, GREY))
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, (title, scores), panel_colors in zip(both, panels.items(), colors, strict=True):
        for (score, label), color in zip(scores, panel_colors, strict=False):
            values = [row[score] for row in rows.values()]
            axes.plot(values, range(len(rows)), "o", color=color, label=label, markersize=4)
        axes.set_xlabel(title)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    both[0].set_yticks(range(len(rows)), [f"{name}  (IoU {row['mask_iou']:.2f})" for name, row in rows.items()])
    both[0].invert_yaxis()
    return figure


def of_region_sizes(rows: pd.DataFrame) -> Figure:
    """The region's area against the true one: a mean for each operation and class of radius."""
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    axes = figure.subplots()
    named = rows.dropna(subset="radius")
    limit = 0.0
    for operation, color in zip(sorted(named["operation"].unique()), (BLUE, GREEN, ORANGE, RED), strict=False):
        chosen = named[named["operation"] == operation]
        means = chosen.groupby(pd.cut(chosen["radius"], RADII), observed=True)[["true_area", "region_area"]].mean()
        axes.plot(means["true_area"], means["region_area"], "o-", color=color, label=operation)
        limit = max(limit, float(means.max().max()))
    axes.plot([0, limit], [0, limit], "--", color=GREY, label="equal")
    axes.set_xlabel("true area, share of the grid")
    axes.set_ylabel("region's area")
    axes.set_title("small to large objects, radius 6 to 14 px", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def failure_groups(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cases grouped by what may make them hard. Except by operation, only replace, recolour and remove count."""
    local = rows[rows["operation"].isin(("replace", "recolour", "remove"))]
    groups = {operation: rows[rows["operation"] == operation] for operation in sorted(rows["operation"].unique())}
    for n in sorted(local["things"].unique()):
        groups[f"{n} objects" if n > 1 else "1 object"] = local[local["things"] == n]
    for low, high in zip(RADII[:-1], RADII[1:], strict=True):
        inside = local["radius"].between(low, high, inclusive="right")
        groups[f"radius {np.ceil(low):.0f}-{high:.0f} px"] = local[inside]
    alike, crowd = local["alike"].fillna(""), local["things"] > 1
    names = {"": "no look-alike", "color": "same colour", "shape": "same shape", "color and shape": "both"}
    groups |= {name: local[(alike == what) & crowd] for what, name in names.items()}
    groups |= {"seen pair": local[local["pair_seen"]], "unseen pair": local[~local["pair_seen"]]}
    groups |= {"seen phrasing": local[local["phrasing_seen"]], "unseen phrasing": local[~local["phrasing_seen"]]}
    return {name: group for name, group in groups.items() if len(group)}


def of_failures(rows: pd.DataFrame) -> Figure:
    """The share of regions with an IoU below 0.3, by group and kind."""
    groups = failure_groups(rows)
    figure = Figure(figsize=(8, 0.8 + 0.27 * len(groups)), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(groups))
    for kind, color in FAILURES.items():
        share = np.array([(group["failure"] == kind).mean() for group in groups.values()])
        axes.barh(range(len(groups)), share, left=start, color=color, label=kind)
        start += share
    axes.set_yticks(range(len(groups)), [f"{name} ({len(group)})" for name, group in groups.items()], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("share of cases with an IoU below 0.3")
    axes.legend(fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def of_regions(rows: Sequence[tuple[np.ndarray, str, Sequence[tuple[str, np.ndarray]]]]) -> Figure:
    """One row for each picture: the picture, then its regions, with everything outside a region faded.

    Args:
        rows: picture uint8 [H, W, 3], its title, and (title, P [H, W] in [0, 1]) pairs.
    """
    columns = 1 + max(len(regions) for *_, regions in rows)
    figure = Figure(figsize=(2 * columns, 2.25 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for line, (picture, title, regions) in zip(panels, rows, strict=True):
        line[0].imshow(picture)
        line[0].set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=7)
        for axes, (name, probability) in zip(line[1:], regions, strict=False):
            axes.imshow(picture)
            axes.imshow(np.ones_like(picture) * 255, alpha=0.85 * (1 - probability))
            axes.contour(probability, [0.5], colors=[RED], linewidths=1.5)
            axes.set_title(textwrap.fill(name, TITLE_WIDTH), fontsize=7)
    return figure
