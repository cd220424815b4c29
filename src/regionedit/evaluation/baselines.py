"""Honest rivals of a mask source, scored on the same cases: regions that look at nothing, CLIP alone, and the truth.

Each is a mask source and a way to turn a case into a request. Only `truth` and `click`, which points at the true
thing, read the truth, and say so in their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from regionedit.config import DataConfig, EvaluateConfig
from regionedit.data.loader import ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.evaluation.outcomes import Outcome, cell_means
from regionedit.evaluation.region_metrics import THRESHOLDS, TRUTH_CELL, iou_curve
from regionedit.generators import noise_seed
from regionedit.images import box_mask, to_pictures
from regionedit.mask_sources import MaskSource, require_mask_source
from regionedit.mask_sources.prompts import deepest
from regionedit.masks import downsample
from regionedit.records import Captions, EditCase, EditRequest

UNSIZED = 512  # side of validation pictures where the generator keeps every size


@dataclass(frozen=True)
class Baseline:
    """A rival.

    Args:
        mask_source: key of MASK_SOURCES.
        request: the case as this rival gets it.
        title: in tables.
        tuned: its threshold is the best one on validation shards, so that it is not judged by a poor choice of ours.
    """

    mask_source: str
    request: Callable[[EditCase], EditRequest]
    title: str
    tuned: bool = False


def as_it_is(case: EditCase) -> EditRequest:
    """The case's own request."""
    return case.request


def with_chance_box(case: EditCase) -> EditRequest:
    """A square with a ninth of the picture's area at a random place, the same every time."""
    width, height = case.request.image.size
    side_x, side_y = max(1, width // 3), max(1, height // 3)
    rng = np.random.default_rng(noise_seed(0, "chance", case.id))
    left, top = int(rng.integers(width - side_x + 1)), int(rng.integers(height - side_y + 1))
    return replace(case.request, mask=box_mask((width, height), (left, top, left + side_x, top + side_y)))


def with_truth(case: EditCase) -> EditRequest:
    """Every pixel that the true region touches."""
    return replace(case.request, mask=case.truth_mask.convert("L").point(lambda value: 255 if value else 0))


def with_click(case: EditCase) -> EditRequest:
    """A click where a person would click: on the true thing, as far from its rim as can be; where nothing is there yet
    (add) or all around is meant (background), in the middle of the true region."""
    thing = case.thing_mask or case.truth_mask
    return replace(case.request, click=(deepest(np.asarray(thing.convert("L")) > 127),))


def marked_by_truth(mask_source: str, case: EditCase, request: EditRequest) -> EditRequest:
    """The request, for a mask source that reads what a person marks: with the mark that one who knows would make."""
    reads = require_mask_source(mask_source).reads
    if not reads or request.marks or case.truth_mask is None:
        return request
    marked = (with_click if "click" in reads else with_truth)(case)
    return replace(request, click=marked.click, mask=marked.mask)


IDENTITY = "identity"  # the source, not edited: what preservation alone scores

BASELINES: dict[str, Baseline] = {
    "chance": Baseline("drawn", with_chance_box, "random box"),
    "everything": Baseline("everything", as_it_is, "everything"),
    "centre_box": Baseline("centre_box", as_it_is, "centre box"),
    "clip_similarity": Baseline("clip_similarity", as_it_is, "CLIP similarity", tuned=True),
    "difference": Baseline("difference", as_it_is, "difference (DiffEdit)", tuned=True),
    "box_search": Baseline("box_search", as_it_is, "best box by CLIP"),
    "click": Baseline("sam", with_click, "SAM, a click on the true thing"),
    "truth": Baseline("drawn", with_truth, "true region (oracle)"),
}


def require_baselines(names: Iterable[str]) -> None:
    """Raises ValueError naming one that nobody knows, and those there are."""
    for name in names:
        if name != IDENTITY and name not in BASELINES:
            raise ValueError(f"baselines: no baseline {name!r}; there are: {', '.join((IDENTITY, *BASELINES))}")


def unchanged(cases: Iterable[EditCase]) -> Iterator[Outcome]:
    """Every source picture as it is, as if that were an edit."""
    return (Outcome(case, picture=case.request.image) for case in cases if case.scored)


def true_regions(cases: Iterable[EditCase], grid: int) -> Iterator[Outcome]:
    """The true region as an oracle would give it: its cells on the grid, every pixel it touches in the mask."""
    for case in (case for case in cases if case.scored):
        coverage = np.asarray(case.truth_mask.convert("L"), np.float32) / 255
        cells = (cell_means(coverage, grid) > TRUTH_CELL).astype(np.float32)
        yield Outcome(case, mask=(coverage > 0).astype(np.float32), probability=coverage, patches=cells)


@torch.no_grad()
def best_validation_threshold(
    source: MaskSource, grid: int, config: EvaluateConfig, operations: Sequence[str]
) -> float:
    """The threshold with the highest mean region IoU on the validation shards; the test cases are never looked at.

    Raises:
        ValueError: no validation shards with truth.
    """
    if config.validation is None:
        raise ValueError("validation: a baseline needs validation shards with truth to choose its threshold on")
    manifest = Manifest.open(config.validation, truth=True)
    data = DataConfig(
        validation=config.validation,
        global_batch=config.batch,
        image_size=config.generator.size or UNSIZED,
        validation_samples=config.validation_samples,
        workers=0,
        max_bad_fraction=0,
    )
    curves = []
    for batch in ValidationLoader(manifest, data):
        if batch.truth_mask_B1HW is None:
            raise ValueError(f"validation: {config.validation} has no truth beside its shards")
        asked = zip(to_pictures(batch.images_BCHW), batch.instructions, batch.keys, strict=True)
        requests = [EditRequest(picture, instruction, id=key) for picture, instruction, key in asked]
        captions = [Captions(*both) for both in zip(batch.source_captions, batch.target_captions, strict=True)]
        region = source.find(batch.images_BCHW, requests, captions)
        found_BN = downsample(region.probability_B1HW, grid) if region.patches_BN is None else region.patches_BN
        truth_BN = downsample(batch.truth_mask_B1HW, grid) > TRUTH_CELL
        for found_N, truth_N, operation in zip(found_BN, truth_BN, batch.operations, strict=True):
            if operation in operations:
                curves.append(iou_curve(found_N.numpy(), truth_N.numpy()))
    return float(THRESHOLDS[int(torch.stack(curves).mean(0).argmax())])
