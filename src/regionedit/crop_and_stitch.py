"""Crop and stitch: the generator sees a window around each region, at the picture's own resolution.

A window contains a region, or several regions whose windows would overlap, and some of their surroundings. It is scaled
to the generator's size, repainted and scaled back. Windows of all pictures are batched. Nothing outside the region's
box is read back, so a larger picture costs only the memory for its pixels.

Shape letters: B pictures of one size, P windows of one fitted shape, C channels, H W pixels of the pictures, h w of the
fitted windows, K instructions. Boxes are (x0, y0, x1, y1), x1 and y1 excluded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from scipy.ndimage import find_objects, label

from regionedit.generators import Generator, Watch, noise_seed, step_of_all
from regionedit.masks import divide, grow
from regionedit.records import Region
from regionedit.registration import registered
from regionedit.resampling import Fit, fit, fit_mask, unfit
from regionedit.results import Patch
from regionedit.seams import match_tone

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import CropConfig
    from regionedit.records import Captions, EditRequest

log = logging.getLogger(__name__)

Box = tuple[int, int, int, int]

OWN_SIZE = 256  # smallest side of a window if the generator has no size of its own
MOST = 16  # a region with more connected parts gets a single window


@dataclass(frozen=True)
class Window:
    """A part of a picture that the generator repaints.

    Args:
        place: index of the picture in its batch.
        number: index of the window in its picture.
        box: position in the picture.
        image_1Chw, region: fitted to the generator's size; masks are hard.
        placed: how the window was fitted, for `resampling.unfit`.
    """

    place: int
    number: int
    box: Box
    image_1Chw: Tensor
    region: Region
    placed: Fit


def require_crop(config: CropConfig) -> None:
    """Check the settings. Raises ValueError: the message names the wrong field."""
    if config.context and config.context < 1:
        raise ValueError(
            f"crop.context: {config.context}; give 0 for the whole picture, or at least 1 for a window around a region"
        )
    for name in ("margin", "sample_grow", "tone", "match"):
        if getattr(config, name) < 0:
            raise ValueError(f"crop.{name}: {getattr(config, name)}; give a number of pixels, or 0 to switch it off")


def boxes_of(mask_HW: Tensor, context: float, size: int, margin: int = 0) -> list[Box]:
    """Windows of a region, sorted from the top: they do not overlap, and each part of the region lies in one.

    Args:
        mask_HW: pixels above 0 are edited.
        context: side of a window as a multiple of the longer side of the box of its content, at least 1; 0: the whole
            picture, unless there is a margin.
        margin: pixels that a window extends beyond that box on each side, at least.
        size: minimum side of a window in pixels, so that nothing is enlarged; less only if the picture is smaller.
    """
    height, width = mask_HW.shape
    whole = (0, 0, width, height)
    if not (context or margin) or max(height, width) <= size:
        return [whole]
    parts, count = label((mask_HW > 0).numpy())
    part_boxes = [
        (horizontal.start, vertical.start, horizontal.stop, vertical.stop)
        for vertical, horizontal in find_objects(parts)
    ]
    if count > MOST:
        part_boxes = [_around(part_boxes)]
    groups = [[box] for box in part_boxes]
    while True:
        windows = [_window(_around(boxes), context, margin, size, width, height) for boxes in groups]
        pair = _overlapping(windows)
        if pair is None:
            return sorted(windows, key=lambda box: (box[1], box[0]))
        first, second = pair
        groups[first] += groups.pop(second)


def paint(
    generator: Generator,
    images_BCHW: Tensor,
    region: Region,
    places: Sequence[int],
    requests: Sequence[EditRequest],
    captions: Sequence[Captions | None],
    crop: CropConfig,
    batch: int,
    watch: Watch | None,
) -> dict[int, list[Patch]]:
    """Repaint the windows of the selected pictures, at the pictures' own resolution.

    The generator gets a hard mask, as in-painters are trained with, and may change every pixel where the mask is above
    0, and with `crop.sample_grow` pixels around it. The composite later decides how much of each repainted pixel is
    used.

    Args:
        images_BCHW: [0, 1], float32, on the CPU.
        region: regions of these pictures.
        places: indices of the pictures to edit; their masks are not empty.
        requests, captions: one for every picture.
        batch: number of windows that are repainted together; where the memory does not suffice, it is halved.
        watch: as for `Editor`; its previews are whole pictures that show the current state of the windows.
    """
    region = _widened(region, crop.sample_grow)
    windows = [
        _cut(images_BCHW, region, place, number, box, generator)
        for place in places
        for number, box in enumerate(boxes_of(region.mask_B1HW[place, 0], crop.context, generator.size, crop.margin))
    ]
    by_shape: dict[tuple, list[Window]] = {}
    for window in windows:
        by_shape.setdefault(tuple(window.image_1Chw.shape), []).append(window)
    batches = [part for group in by_shape.values() for part in _split(group, batch)]
    preview_BCHW = images_BCHW.clone() if watch else None
    patches: dict[int, list[Patch]] = {place: [] for place in places}
    done = 0
    while done < len(batches):
        batch_windows = batches[done]
        report = watch and step_of_all(watch, done, len(batches), partial(_with_windows, preview_BCHW, batch_windows))
        try:
            repainted_PChw = _repaint_windows(generator, batch_windows, requests, captions, report)
        except torch.OutOfMemoryError:
            repainted_PChw = None
        if repainted_PChw is None:  # outside `except`, because the exception holds the tensors of the call that failed
            torch.cuda.empty_cache()
            batches[done:] = _halved(batches[done:])
            continue
        done += 1
        for window, patch_1Chw, note in _placed(batch_windows, repainted_PChw, crop.register):
            picture_CHW = unfit(patch_1Chw, window.placed)[0]
            if crop.tone:
                x0, y0, x1, y1 = window.box
                source_CHW = images_BCHW[window.place, :, y0:y1, x0:x1]
                picture_CHW = match_tone(
                    picture_CHW, source_CHW, region.mask_B1HW[window.place, 0, y0:y1, x0:x1], crop.tone
                )
            patches[window.place].append(Patch(window.box, picture_CHW, note))
            if watch:
                _paste(preview_BCHW, window, patch_1Chw)
    return patches


def _widened(region: Region, pixels: int) -> Region:
    """What the generator repaints: the region grown by this many pixels; a new pixel belongs to the nearest part."""
    if not pixels:
        return region
    mask_B1HW, parts_BKHW = grow((region.mask_B1HW > 0).float(), pixels), region.per_instruction_BKHW
    parts_BKHW = None if parts_BKHW is None else divide(mask_B1HW, parts_BKHW)
    return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW)


def _halved(batches: list[list[Window]]) -> list[list[Window]]:
    """The windows in batches of half the first one's size. Raises RuntimeError: that one had a single window."""
    count = len(batches[0])
    if count == 1:
        height, width = batches[0][0].image_1Chw.shape[-2:]
        raise RuntimeError(
            f"out of memory with one window of {width}x{height} px: lower generator.size or set generator.dtype"
        )
    log.warning("out of memory with %d windows at once: going on with %d", count, count // 2)
    return [part for windows in batches for part in _split(windows, count // 2)]


def _split(windows: list[Window], count: int) -> list[list[Window]]:
    return [windows[start : start + count] for start in range(0, len(windows), count)]


def _placed(windows: list[Window], repainted_PChw: Tensor, register: bool) -> Iterator[tuple[Window, Tensor, str]]:
    """Each window with its repainted picture, moved back onto the source if `register`, and a note about that."""
    motions = [None] * len(windows)
    if register:
        fitted_PChw = torch.cat([window.image_1Chw for window in windows])
        mask_P1hw = torch.cat([window.region.mask_B1HW for window in windows])
        repainted_PChw, motions = registered(repainted_PChw, fitted_PChw, mask_P1hw)
    for window, patch_1Chw, motion in zip(windows, repainted_PChw.split(1), motions, strict=True):
        yield window, patch_1Chw, str(motion or "")


def _repaint_windows(
    generator: Generator,
    windows: list[Window],
    requests: Sequence[EditRequest],
    captions: Sequence[Captions | None],
    watch: Watch | None,
) -> Tensor:
    """Repaint the windows of one call: [P, C, h, w]; `watch` is called after each of its steps."""
    regions = [window.region for window in windows]
    parts = [region.per_instruction_BKHW for region in regions]
    joined = Region(
        torch.cat([region.mask_B1HW for region in regions]),
        torch.cat([region.probability_B1HW for region in regions]),
        None if parts[0] is None else torch.cat(parts),
    )
    window_requests = [requests[window.place] for window in windows]
    window_captions = [captions[window.place] for window in windows]
    seeds = [
        noise_seed(request.noise, window.number) if window.number else request.noise
        for request, window in zip(window_requests, windows, strict=True)
    ]
    fitted_PChw = torch.cat([window.image_1Chw for window in windows])
    return generator.repaint(fitted_PChw, joined, window_requests, window_captions, seeds, watch).float().cpu()


def _with_windows(preview_BCHW: Tensor, windows: list[Window], repainted_PChw: Tensor) -> Tensor:
    """A copy of the pictures with these repainted windows."""
    current_BCHW = preview_BCHW.clone()
    for window, repainted_1Chw in zip(windows, repainted_PChw.float().cpu().split(1), strict=True):
        _paste(current_BCHW, window, repainted_1Chw)
    return current_BCHW


def _paste(preview_BCHW: Tensor, window: Window, repainted_1Chw: Tensor) -> None:
    """Paste a repainted window into its picture."""
    x0, y0, x1, y1 = window.box
    preview_BCHW[window.place, :, y0:y1, x0:x1] = unfit(repainted_1Chw, window.placed)[0]


def _cut(images_BCHW: Tensor, region: Region, place: int, number: int, box: Box, generator: Generator) -> Window:
    x0, y0, x1, y1 = box
    inside = (slice(place, place + 1), slice(None), slice(y0, y1), slice(x0, x1))
    image_1Chw, placed = fit(images_BCHW[inside], generator.size, generator.multiple)
    size = tuple(image_1Chw.shape[-2:])
    parts_BKHW = region.per_instruction_BKHW
    fitted = Region(
        fit_mask(region.mask_B1HW[inside], placed, size),
        fit(region.probability_B1HW[inside], generator.size, generator.multiple)[0],
        None if parts_BKHW is None else fit_mask(parts_BKHW[inside], placed, size),
    )
    return Window(place, number, box, image_1Chw, fitted, placed)


def _window(box: Box, context: float, margin: int, size: int, width: int, height: int) -> Box:
    """A square around a box, moved into the picture; in a smaller picture it is cut to the picture's sides."""
    longer = max(box[2] - box[0], box[3] - box[1])
    side = max(round(context * longer), longer + 2 * margin, size or OWN_SIZE)
    x0, x1 = _span(box[0], box[2], side, width)
    y0, y1 = _span(box[1], box[3], side, height)
    return x0, y0, x1, y1


def _span(start: int, stop: int, side: int, length: int) -> tuple[int, int]:
    side = min(side, length)
    first = min(max((start + stop - side) // 2, 0), length - side)
    return first, first + side


def _around(boxes: list[Box]) -> Box:
    x0s, y0s, x1s, y1s = zip(*boxes, strict=True)
    return min(x0s), min(y0s), max(x1s), max(y1s)


def _overlapping(boxes: list[Box]) -> tuple[int, int] | None:
    for second, b in enumerate(boxes):
        for first, a in enumerate(boxes[:second]):
            if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]:
                return first, second
    return None
