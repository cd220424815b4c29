"""Baselines of a mask source, scored on the same cases: fixed regions, CLIP, DiffEdit, a click, and the true region.

Each one is a mask source and a function from a case to its request. Only `truth`, and `click`, which clicks the true
object, read the truth; their titles say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import torch

from regionedit.config import DataConfig, EvaluateConfig
from regionedit.data.batches import scaled
from regionedit.data.loader import ValidationLoader
from regionedit.data.manifest import Manifest
from regionedit.evaluation.outcomes import Outcome
from regionedit.evaluation.region_metrics import iou_curve, true_cells
from regionedit.generators import noise_seed
from regionedit.images import box_mask, to_pictures
from regionedit.mask_sources import MaskSource, require_mask_source
from regionedit.mask_sources.prompts import deepest
from regionedit.masks import downsample
from regionedit.records import Captions, EditCase, EditRequest
from regionedit.region_scores import THRESHOLDS, TRUTH_COVERAGE

UNSIZED = 512  # side of validation pictures if the generator accepts every size


@dataclass(frozen=True)
class Baseline:
    """A baseline.

    Args:
        mask_source: key of MASK_SOURCES.
        title: name in tables.
        request: case -> the request that the mask source gets.
        tuned: use the threshold that is best on validation shards, so that a poor choice of ours does not hurt it.
    """

    mask_source: str
    title: str
    request: Callable[[EditCase], EditRequest] = attrgetter("request")
    tuned: bool = False


def with_chance_box(case: EditCase) -> EditRequest:
    """A drawn box of a ninth of the picture's area at a random place, which is fixed for each case."""
    width, height = case.request.image.size
    side_x, side_y = max(1, width // 3), max(1, height // 3)
    rng = np.random.default_rng(noise_seed(0, "chance", case.id))
    left, top = int(rng.integers(width - side_x + 1)), int(rng.integers(height - side_y + 1))
    return replace(case.request, mask=box_mask((width, height), (left, top, left + side_x, top + side_y)))


def with_truth(case: EditCase) -> EditRequest:
    """A drawn mask of every pixel that the true region touches."""
    return replace(case.request, mask=case.truth_mask.convert("L").point(lambda value: 255 if value else 0))


def with_click(case: EditCase) -> EditRequest:
    """A click where a person would click: on the true object, as far from its outline as possible.

    If the edit names no object (add, background), the click is in the middle of the true region; if there is nothing to
    do, in the corner.
    """
    mask = case.object_mask or case.truth_mask
    return replace(case.request, click=(deepest(np.asarray(mask.convert("L")) > 127),))


def marked_by_truth(mask_source: str, case: EditCase, request: EditRequest) -> EditRequest:
    """The request; for a mask source that reads marks, with the click or mask of a person who knows the truth."""
    read_marks = require_mask_source(mask_source).marks
    if not read_marks or request.marks or case.truth_mask is None:
        return request
    marked = (with_click if "click" in read_marks else with_truth)(case)
    return replace(request, click=marked.click, mask=marked.mask)


IDENTITY = "identity"  # the unedited source: the scores of perfect preservation

BASELINES: dict[str, Baseline] = {
    "chance": Baseline("drawn", "random box", with_chance_box),
    "everything": Baseline("everything", "everything"),
    "centre_box": Baseline("centre_box", "centre box"),
    "clip_similarity": Baseline("clip_similarity", "CLIP similarity", tuned=True),
    "difference": Baseline("difference", "difference (DiffEdit)", tuned=True),
    "box_search": Baseline("box_search", "best box by CLIP"),
    "click": Baseline("sam", "SAM, a click on the true object", with_click),
    "truth": Baseline("drawn", "true region (oracle)", with_truth),
}


def require_baselines(names: Iterable[str]) -> None:
    """Raises ValueError for an unknown name; the message lists the known ones."""
    for name in names:
        if name != IDENTITY and name not in BASELINES:
            raise ValueError(f"baselines: no baseline {name!r}; there are: {', '.join((IDENTITY, *BASELINES))}")


def unchanged(cases: Iterable[EditCase]) -> Iterator[Outcome]:
    """Outcomes whose edited picture is the unchanged source."""
    return (Outcome(case, picture=case.request.image) for case in cases if case.scored)


def true_regions(cases: Iterable[EditCase], grid: int) -> Iterator[Outcome]:
    """Outcomes with the true region: on the grid its true cells, in the mask every pixel that it touches."""
    for outcome in (Outcome(case) for case in cases if case.scored):
        touched, cells = (outcome.truth > 0).astype(np.float32), true_cells(outcome, grid).astype(np.float32)
        yield replace(outcome, mask=touched, probability=outcome.truth, patches=cells)


@torch.no_grad()
def best_validation_threshold(
    source: MaskSource, grid: int, config: EvaluateConfig, operations: Sequence[str]
) -> float:
    """The threshold with the highest mean region IoU on the validation shards; the test cases are not used.

    Raises:
        ValueError: `validation` is missing, or its shards have no truth.
    """
    if config.validation is None:
        raise ValueError("validation: missing; give shards with truth, on which a baseline chooses its threshold")
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
    for batch in map(scaled, ValidationLoader(manifest, data)):
        if batch.truth_mask_B1HW is None:
            raise ValueError(f"validation: {config.validation} has no truth; give shards that were packed with truth")
        samples = zip(to_pictures(batch.images_BCHW), batch.instructions, batch.keys, strict=True)
        requests = [EditRequest(picture, text, seed=noise_seed(0, key), id=key) for picture, text, key in samples]
        captions = [Captions(*both) for both in zip(batch.source_captions, batch.target_captions, strict=True)]
        region = source.find(batch.images_BCHW, requests, captions)
        region_BN = downsample(region.probability_B1HW, grid) if region.patches_BN is None else region.patches_BN
        truth_BN = downsample(batch.truth_mask_B1HW, grid) > TRUTH_COVERAGE
        for region_N, truth_N, operation in zip(region_BN, truth_BN, batch.operations, strict=True):
            if operation in operations:
                curves.append(iou_curve(region_N.numpy(), truth_N.numpy()))
    return float(THRESHOLDS[int(torch.stack(curves).mean(0).argmax())])
