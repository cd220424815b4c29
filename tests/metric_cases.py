"""Pictures, masks and cases small enough to work a metric out by hand."""

import math

import numpy as np
from PIL import Image

from regionedit.config import EvaluateConfig
from regionedit.evaluation import METRICS
from regionedit.evaluation.metrics import CaseMetric
from regionedit.evaluation.outcomes import Outcome
from regionedit.records import Captions, EditCase, EditRequest

NAN = math.nan


def flat(value: int, side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), (value,) * 3)


def noise(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def paint(picture: Image.Image, box: tuple[int, int, int, int], value: int) -> Image.Image:
    painted = picture.copy()
    painted.paste((value,) * 3, box)
    return painted


def mask(box: tuple[int, int, int, int] | None, width: int = 8, height: int = 8) -> Image.Image:
    made = Image.new("L", (width, height))
    if box is not None:
        made.paste(255, box)
    return made


def case(
    source: Image.Image,
    target: Image.Image | None = None,
    truth_mask: Image.Image | None = None,
    captions: tuple[str, str] | None = None,
    instruction: str = "change it",
) -> EditCase:
    request = EditRequest(source, instruction, captions=captions and Captions(*captions), id="c")
    return EditCase("c", request, "replace", truth_mask=truth_mask, truth_image=target)


def value(metric: CaseMetric, *outcomes: Outcome) -> float | list[float]:
    """What a metric gives these cases; a number for one of them."""
    metric.update(outcomes)
    found = metric.values().tolist()
    return found[0] if len(outcomes) == 1 else found


def plain(name: str) -> CaseMetric:
    """A metric that takes nothing from the configuration."""
    return METRICS[name].from_config(EvaluateConfig())
