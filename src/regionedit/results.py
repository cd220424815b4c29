"""From the generator's output to a result: blend it into the source, collect the region's maps, merge several edits.

Shape letters: B pictures, C channels, H W their pixels, K instructions, N patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageChops

from regionedit.images import to_pictures, to_tensor
from regionedit.masks import composite
from regionedit.seams import match_border

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from regionedit.records import EditRequest, EditResult, Region


@dataclass(frozen=True)
class Patch:
    """The generator's output for a part of the source.

    Args:
        box: (x0, y0, x1, y1) in the source, x1 and y1 excluded.
        picture_CHW: [0, 1], of the box's size.
    """

    box: tuple[int, int, int, int]
    picture_CHW: Tensor


def compose(picture: Image, patches: Sequence[Patch], mask: Image, match: float = 0.0) -> Image:
    """Blend the patches into the source, at the original size; pixels outside the patches are not read.

    Args:
        picture: the source, RGB.
        patches: do not overlap.
        mask: mode "L", 0 outside the patches.
        match: see `seams.match_border`.
    """
    result = picture.copy()
    for patch in patches:
        part = mask.crop(patch.box)
        inside = part.getbbox()
        if inside is None:
            continue
        reach = 1 if match else 0  # `match_border` reads the region's neighbours
        x0, y0 = max(inside[0] - reach, 0), max(inside[1] - reach, 0)
        x1, y1 = min(inside[2] + reach, part.width), min(inside[3] + reach, part.height)
        box = (patch.box[0] + x0, patch.box[1] + y0, patch.box[0] + x1, patch.box[1] + y1)
        source_BCHW, mask_B1HW = to_tensor([picture.crop(box)]), to_tensor([mask.crop(box)])
        edited_BCHW = match_border(patch.picture_CHW[None, :, y0:y1, x0:x1], source_BCHW, mask_B1HW, match)
        result.paste(to_pictures(composite(edited_BCHW, source_BCHW, mask_B1HW))[0], box[:2])
    return result


def changed_outside(source: Image, result: Image, mask: Image) -> int:
    """Number of pixels that differ from the source where the mask is 0; always 0 for results of `compose`."""
    differs_HW = (np.asarray(source) != np.asarray(result)).any(-1)
    return int((differs_HW & (np.asarray(mask) == 0)).sum())


def maps(region: Region, requests: Sequence[EditRequest]) -> list[dict[str, Any]]:
    """For each picture, the fields of `EditResult` about its region: probability, patches, parts and note."""
    rows = []
    for b, request in enumerate(requests):
        patches_NN = parts_KHW = None
        if region.patches_BN is not None:
            side = round(region.patches_BN.shape[1] ** 0.5)
            patches_NN = region.patches_BN[b].view(side, side).numpy()
        count = len(request.instructions)
        if region.per_instruction_BKHW is not None and count > 1:
            parts_KHW = region.per_instruction_BKHW[b, :count]
        rows.append(
            {
                "probability": region.probability_B1HW[b, 0].numpy(),
                "patches": patches_NN,
                "parts": () if parts_KHW is None else tuple(to_pictures(parts_KHW[:, None])),
                "note": region.notes[b] if region.notes else "",
            }
        )
    return rows


def next_step(request: EditRequest, done: Sequence[EditResult]) -> EditRequest:
    """One instruction after another: the request for the next one, on the picture that the previous steps produced.

    Given captions describe the whole edit, so each step gets new captions. Seed, id and marks stay those of the
    request: a step does what its instruction alone would do to that picture.
    """
    image = done[-1].image if done else request.image
    return replace(request, image=image, instructions=request.instructions[len(done) : len(done) + 1], captions=None)


def as_one(request: EditRequest, done: Sequence[EditResult], record: dict[str, Any]) -> EditResult:
    """Merge the steps of a request into one result: last picture, union of the masks, maximum of the probabilities.

    Args:
        request: with all its instructions.
        done: one result for each of them, in order.
        record: record of the whole request, from `provenance.run_record`; an entry for each step is added.
    """
    mask = done[0].mask
    for step in done[1:]:
        mask = ImageChops.lighter(mask, step.mask)
    patches = [step.patches for step in done]
    notes = [f"step {number}: {step.note}" for number, step in enumerate(done, start=1) if step.note]
    stages = dict.fromkeys(stage for step in done for stage in step.timings)
    timings = {stage: sum(step.timings.get(stage, 0.0) for step in done) for stage in stages}
    whole = replace(
        done[-1],
        mask=mask,
        record=record,
        probability=np.max([step.probability for step in done], axis=0),
        patches=None if any(p is None for p in patches) else np.max(patches, axis=0),
        captions=request.captions,
        timings=timings,
        note="; ".join(notes),
        source=done[0].source,
        parts=tuple(step.mask for step in done),
    )
    fields = ("captions", "edited_share", "note", "seconds")
    whole.record.update(
        captions=None,
        edited_share=round(whole.share, 6),
        note=whole.note,
        device=done[-1].record["device"],
        seconds={stage: round(seconds, 4) for stage, seconds in timings.items()},
        steps=[
            {"instruction": step.record["instructions"][0]["text"]} | {name: step.record[name] for name in fields}
            for step in done
        ],
    )
    return whole
