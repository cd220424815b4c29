"""From the generator's output to a result: blend it into the source, collect the region's maps, merge several edits.

Shape letters: B pictures, C channels, H W their pixels, K instructions, N patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import ImageChops

from regionedit.images import to_pictures, to_tensor
from regionedit.masks import composite
from regionedit.originals import KEY, original_of, pixels_of, shown
from regionedit.records import EditFailure
from regionedit.seams import match_border

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from regionedit.records import EditRequest, EditResult, Region


LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, as in Pillow's mode "L"


@dataclass(frozen=True)
class Patch:
    """The generator's output for a part of the source.

    Args:
        box: (x0, y0, x1, y1) in the source, x1 and y1 excluded.
        picture_CHW: [0, 1], of the box's size.
        note: message to the user about this part, or empty.
    """

    box: tuple[int, int, int, int]
    picture_CHW: Tensor
    note: str = ""


def compose(picture: Image, patches: Sequence[Patch], mask: Image, match: float = 0.0) -> Image:
    """Blend patches that do not overlap into the source, at its own size; pixels outside them are not read.

    The picture behind a view is blended at its own depth; alpha stays as it is.

    Args:
        picture: the source: RGB, perhaps a view of an original.
        mask: mode "L", 0 outside the patches.
        match: depth of `seams.match_border`, in pixels.
    """
    result, original = picture.copy(), original_of(picture)
    pixels_HWC = None if original.pixels_HWC is None else original.pixels_HWC.copy()
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
        if pixels_HWC is None:
            blended = to_pictures(composite(edited_BCHW, source_BCHW, mask_B1HW))[0]
        else:
            part_HWC = pixels_HWC[box[1] : box[3], box[0] : box[2]]
            part_HWC[:] = _blended(part_HWC, original.white, edited_BCHW, mask_B1HW)
            blended = shown(part_HWC, original.white)
        result.paste(blended, box[:2])
    if pixels_HWC is not None:
        result.info = picture.info | {KEY: replace(original, pixels_HWC=pixels_HWC)}
    return result


def _blended(pixels_HWC: np.ndarray, white: float, edited_BCHW: Tensor, mask_B1HW: Tensor) -> np.ndarray:
    """Stored pixels with the edit blended in where the mask is above 0, in their own type.

    The edit shows the picture on white. Where the pixel is translucent, the colour is stored that looks like the edit
    on white; where it is wholly transparent, nothing is painted. A grey picture gets the edit's luminance.
    """
    colours = pixels_HWC.shape[2] - (pixels_HWC.shape[2] % 2 == 0)
    source_BCHW = torch.from_numpy(pixels_HWC[..., :colours] / white).permute(2, 0, 1)[None]
    edited_BCHW = edited_BCHW.to(source_BCHW)
    if colours == 1:
        edited_BCHW = (edited_BCHW * edited_BCHW.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
    if colours < pixels_HWC.shape[2]:
        alpha_HW = torch.from_numpy(pixels_HWC[..., -1] / float(np.iinfo(pixels_HWC.dtype).max))
        solid_BCHW = ((edited_BCHW - (1 - alpha_HW)) / alpha_HW.clamp(min=1e-9)).clamp(0, 1)
        edited_BCHW = torch.where(alpha_HW > 0, solid_BCHW, source_BCHW)
    blended_HWC = composite(edited_BCHW, source_BCHW, mask_B1HW)[0].permute(1, 2, 0).numpy() * white
    changed = pixels_HWC.copy()
    inside_HW = mask_B1HW[0, 0].numpy() > 0
    changed[inside_HW, :colours] = blended_HWC[inside_HW].round().clip(0, np.iinfo(pixels_HWC.dtype).max)
    return changed


def changed_outside(source: Image, result: Image, mask: Image) -> int:
    """Number of pixels, as stored, that differ from the source where the mask is 0; always 0 after `compose`."""
    differs_HW = (pixels_of(source) != pixels_of(result)).any(-1)
    return int((differs_HW & (np.asarray(mask) == 0)).sum())


def maps(region: Region, requests: Sequence[EditRequest]) -> list[dict[str, Any]]:
    """For each picture, the fields of `FoundRegion` that the region has: mask, probability, patches, parts, note."""
    masks = to_pictures(region.mask_B1HW)
    rows = []
    for b, request in enumerate(requests):
        row = {
            "mask": masks[b],
            "probability": region.probability_B1HW[b, 0].numpy(),
            "note": region.notes[b] if region.notes else "",
        }
        if region.patches_BN is not None:
            side = round(region.patches_BN.shape[1] ** 0.5)
            row["patches"] = region.patches_BN[b].view(side, side).numpy()
        count = len(request.instructions)
        if region.per_instruction_BKHW is not None and count > 1:
            row["parts"] = tuple(to_pictures(region.per_instruction_BKHW[b, :count, None]))
        rows.append(row)
    return rows


def joined(*notes: str) -> str:
    """The notes that are not empty, as one."""
    return "; ".join(filter(None, notes))


def measured(result: EditResult, device: str) -> dict[str, Any]:
    """The entries of run.json that are known only after the edit."""
    return {
        "edited_share": round(result.share, 6),
        "note": result.note,
        "device": device,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
    }


def one_after_another(
    requests: Sequence[EditRequest],
    edit: Callable[[list[EditRequest]], list[EditResult | EditFailure]],
    record: Callable[[EditRequest], dict[str, Any]],
) -> list[EditResult | EditFailure]:
    """Edit the instructions of each request one after another, each on the picture that the one before produced.

    Given captions describe the whole edit, so each of several steps gets new captions. Seed and marks stay those of
    the request: a step does what its instruction alone would do to that picture.

    Args:
        edit: edits requests of one instruction each, in one batch.
        record: the record of a whole request, from `provenance.run_record`.

    Returns:
        For each request its steps as one result, or the failure of the first step that failed.
    """
    done: list[list[EditResult]] = [[] for _ in requests]
    failed: dict[int, EditFailure] = {}
    for step in range(max((len(request.instructions) for request in requests), default=0)):
        indices = [i for i, r in enumerate(requests) if i not in failed and step < len(r.instructions)]
        for index, outcome in zip(indices, edit([_step(requests[i], done[i]) for i in indices]), strict=True):
            if isinstance(outcome, EditFailure):
                failed[index] = replace(outcome, reason=f"step {step + 1}: {outcome.reason}") if step else outcome
            else:
                done[index].append(outcome)
    return [failed.get(index) or _merged(request, done[index], record) for index, request in enumerate(requests)]


def _step(request: EditRequest, done: Sequence[EditResult]) -> EditRequest:
    number = len(done)
    if len(request.instructions) == 1:
        return request
    image = done[-1].image if done else request.image
    return replace(request, image=image, instructions=request.instructions[number : number + 1], captions=None)


def _merged(
    request: EditRequest, done: Sequence[EditResult], record: Callable[[EditRequest], dict[str, Any]]
) -> EditResult:
    """The steps as one result: last picture, union of the masks, maximum of the probabilities."""
    if len(done) == 1:
        return done[0]
    patches = [step.patches for step in done]
    notes = [f"step {number}: {step.note}" for number, step in enumerate(done, start=1) if step.note]
    stages = dict.fromkeys(stage for step in done for stage in step.timings)
    whole = replace(
        done[-1],
        mask=reduce(ImageChops.lighter, [step.mask for step in done]),
        record=record(request),
        probability=np.max([step.probability for step in done], axis=0),
        patches=None if any(p is None for p in patches) else np.max(patches, axis=0),
        captions=request.captions,
        timings={stage: sum(step.timings.get(stage, 0.0) for step in done) for stage in stages},
        note=joined(*notes),
        source=done[0].source,
        parts=tuple(step.mask for step in done),
    )
    kept = ("captions", "edited_share", "note", "seconds")
    steps = [
        {"instruction": step.record["instructions"][0]["text"]} | {name: step.record[name] for name in kept}
        for step in done
    ]
    whole.record.update(captions=None, **measured(whole, done[-1].record["device"]), steps=steps)
    return whole
