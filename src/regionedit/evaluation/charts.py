"""The charts of an evaluation, as data URIs: learning curves, and preservation against instruction following."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regionedit.evaluation import METRICS
from regionedit.images import data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {
    "validation/iou/local": "region IoU",
    "validation/iou_best/local": "region IoU at best threshold",
    "validation/pointing/local": "pointing",
    "validation/instruction_swap_iou": "instruction-swap IoU (lower: follows the instruction more)",
}
# metrics of preservation; the chart uses the first one that was measured
PRESERVATION = ("clip_image_source", "l1_source", "outside_truth_change")
OBEDIENCE = "clip_direction"


def draw_trade_off(summary: dict) -> str:
    """Preservation against instruction following: one point with 95 % intervals for each row of the comparison.

    Preservation improves to the right, instruction following upwards. Empty if no row has both metrics.
    """
    blocks = {block["title"]: block["metrics"] for block in summary["baselines"].values()}
    blocks[f"{summary['name']} (this run)"] = summary["metrics"]
    preserved = next((name for name in PRESERVATION if name in summary["metrics"]), None)
    points = {title: m for title, m in blocks.items() if preserved in m and OBEDIENCE in m}
    if not points:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, (title, metrics) in enumerate(points.items()):
        (x, x_error), (y, y_error) = (_with_error(metrics[name]) for name in (preserved, OBEDIENCE))
        style = {"fmt": "D" if title.endswith("(this run)") else "o", "color": f"C{number}", "capsize": 2}
        axes.errorbar(x, y, xerr=x_error, yerr=y_error, label=title, **style)
    axes.set(
        xlabel=f"{METRICS[preserved].title} (preservation)",
        ylabel=f"{METRICS[OBEDIENCE].title} (instruction following)",
    )
    if not METRICS[preserved].higher_is_better:
        axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _as_uri(figure)


def _with_error(score: dict) -> tuple[float, list[list[float]] | None]:
    """A mean, and the distances to the lower and upper end of its interval."""
    if score["low"] is None:
        return score["mean"], None
    return score["mean"], [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]


def draw_curves(log: str | None) -> str:
    """Validation scores over the minutes of a training run, from its metrics.csv; empty without such scores.

    Raises:
        ValueError: the file is missing, or is not the metrics.csv of a training run.
    """
    if log is None:
        return ""
    try:
        table = pd.read_csv(log)[["step", "name", "value"]]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"training_log: {log} is not the metrics.csv of a training run: {error}") from None
    seconds = table[table["name"] == "train/seconds"].set_index("step")["value"]
    curves = {name: points for name, points in table.groupby("name") if name in CURVES}
    if not curves:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name in (name for name in CURVES if name in curves):
        points = curves[name].sort_values("step")
        minutes = np.interp(points["step"], seconds.index, seconds / 60) if len(seconds) else points["step"]
        axes.plot(minutes, points["value"], marker="o", markersize=3, label=CURVES[name])
    axes.set(xlabel="minutes of training" if len(seconds) else "optimiser step", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return _as_uri(figure)


def _as_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return data_uri(buffer.getvalue())
