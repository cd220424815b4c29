"""What the generator is shown of a picture: a window around each region, at the picture's own resolution.

A window holds one region, or several whose windows would overlap, and some of what surrounds it. It is scaled to the
generator's size, painted there and scaled back; windows of all pictures go through the generator together. Nothing
outside of the region's box is ever read back, so that the size of a picture costs nothing but memory for its bytes.

Shape letters: B pictures of one size, P windows of one fitted shape, C channels, H W pixels of the pictures, h w of the
fitted windows, K instructions. Boxes are (x0, y0, x1, y1), x1 and y1 excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from scipy.ndimage import find_objects, label

from regionedit.generators import Generator, Watch, noise_seed
from regionedit.images import Fit, fit, fit_mask, unfit
from regionedit.records import Region
from regionedit.results import Patch

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import CropConfig
    from regionedit.records import Captions, EditRequest

Box = tuple[int, int, int, int]

OWN_SIZE = 256  # smallest side of a window where the generator has no size of its own
MOST = 16  # a region in more parts is one region: a cloud of specks


@dataclass(frozen=True)
class Window:
    """A part of a picture on its way through the generator.

    Args:
        place: of the picture in its batch.
        number: of the window in its picture.
        box: in the picture.
        image_1Chw, mask_11hw, probability_11hw, parts_1Khw: fitted; masks are hard.
        placed: how it was fitted.
    """

    place: int
    number: int
    box: Box
    image_1Chw: Tensor
    mask_11hw: Tensor
    probability_11hw: Tensor
    parts_1Khw: Tensor | None
    placed: Fit


def require_crop(config: CropConfig) -> None:
    """Refuse what no window can have. Raises ValueError: names the field."""
    if config.context and config.context < 1:
        raise ValueError(f"crop.context: {config.context}; 0 shows the whole picture, 1 and more a window of a region")
    if config.match < 0:
        raise ValueError(f"crop.match: {config.match}; give pixels, 0 for none")


def boxes_of(mask_HW: Tensor, context: float, size: int) -> list[Box]:
    """The windows of a region, from the top; none of them overlap, and each part of the region lies in one.

    Args:
        mask_HW: not 0 where it is edited; anywhere.
        context: sides of a window in longer sides of the box of what it holds, at least 1; 0: the whole picture.
        size: a window's shortest side, in pixels, where the picture is that large: what needs no enlarging is not.
    """
    height, width = mask_HW.shape
    whole = (0, 0, width, height)
    if not context or max(height, width) <= size:
        return [whole]
    parts, count = label((mask_HW > 0).numpy())
    found = [(across.start, down.start, across.stop, down.stop) for down, across in find_objects(parts)]
    if count > MOST:
        found = [_around(found)]
    held = [[box] for box in found]
    while True:
        windows = [_window(_around(boxes), context, size, width, height) for boxes in held]
        pair = _overlapping(windows)
        if pair is None:
            return sorted(windows, key=lambda box: (box[1], box[0]))
        first, second = pair
        held[first] += held.pop(second)


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
    """The generator's pictures of the windows of every wanted picture, at the pictures' own resolution.

    The generator may change every pixel that the mask touches at all, and it is shown a hard mask, as in-painters were
    trained on; how much of its picture is used is decided afterwards, by the one composite.

    Args:
        images_BCHW: [0, 1], float32, on the CPU.
        region: theirs.
        places: of the pictures that are wanted; their masks are not empty.
        requests, captions: one for every picture.
        batch: windows that are painted together.
        watch: told of every step, with whole pictures in which the windows are seen as they are then.
    """
    windows = [
        _cut(images_BCHW, region, place, number, box, generator)
        for place in places
        for number, box in enumerate(boxes_of(region.mask_B1HW[place, 0], crop.context, generator.size))
    ]
    alike: dict[tuple, list[Window]] = {}
    for window in windows:
        alike.setdefault(tuple(window.image_1Chw.shape), []).append(window)
    calls = [group[start : start + batch] for group in alike.values() for start in range(0, len(group), batch)]
    seen_BCHW = images_BCHW.clone() if watch else None
    patches: dict[int, list[Patch]] = {place: [] for place in places}
    for number, together in enumerate(calls):
        told = watch and partial(_told, watch, seen_BCHW, together, number, len(calls))
        made_PChw = _paint_together(generator, together, requests, captions, told)
        for window, made_1Chw in zip(together, made_PChw.split(1), strict=True):
            patch = Patch(window.box, unfit(made_1Chw, window.placed)[0])
            patches[window.place].append(patch)
            if watch:
                _show(seen_BCHW, window, made_1Chw)
    return patches


def _paint_together(
    generator: Generator,
    windows: list[Window],
    requests: Sequence[EditRequest],
    captions: Sequence[Captions | None],
    watch: Watch | None,
) -> Tensor:
    """What is painted in the windows of one call, PChw; `watch` is told of its steps."""
    parts = [window.parts_1Khw for window in windows]
    wanted = Region(
        torch.cat([window.mask_11hw for window in windows]),
        torch.cat([window.probability_11hw for window in windows]),
        None if parts[0] is None else torch.cat(parts),
    )
    asked = [requests[window.place] for window in windows]
    said = [captions[window.place] for window in windows]
    seeds = [
        noise_seed(request.seed, request.id, *([window.number] if window.number else []))
        for request, window in zip(asked, windows, strict=True)
    ]

    with generator.watched(watch):
        fitted_PChw = torch.cat([window.image_1Chw for window in windows])
        return generator.repaint(fitted_PChw, wanted, asked, said, seeds).float().cpu()


def _told(
    watch: Watch,
    seen_BCHW: Tensor,
    windows: list[Window],
    number: int,
    calls: int,
    step: int,
    steps: int,
    guess: Callable[[], Tensor],
) -> None:
    """One step of one call, told as a step of all calls, with whole pictures in which the windows are seen."""

    def shown() -> Tensor:
        now_BCHW = seen_BCHW.clone()
        for window, made_1Chw in zip(windows, guess().float().cpu().split(1), strict=True):
            _show(now_BCHW, window, made_1Chw)
        return now_BCHW

    watch(number * steps + step, calls * steps, shown)


def _show(seen_BCHW: Tensor, window: Window, made_1Chw: Tensor) -> None:
    """Put a window into its picture."""
    x0, y0, x1, y1 = window.box
    seen_BCHW[window.place, :, y0:y1, x0:x1] = unfit(made_1Chw, window.placed)[0]


def _cut(images_BCHW: Tensor, region: Region, place: int, number: int, box: Box, generator: Generator) -> Window:
    x0, y0, x1, y1 = box
    inside = (slice(place, place + 1), slice(None), slice(y0, y1), slice(x0, x1))
    image_1Chw, placed = fit(images_BCHW[inside], generator.size, generator.multiple)
    size = tuple(image_1Chw.shape[-2:])
    parts_BKHW = region.per_instruction_BKHW
    return Window(
        place=place,
        number=number,
        box=box,
        image_1Chw=image_1Chw,
        mask_11hw=fit_mask(region.mask_B1HW[inside], placed, size),
        probability_11hw=fit(region.probability_B1HW[inside], generator.size, generator.multiple)[0],
        parts_1Khw=None if parts_BKHW is None else fit_mask(parts_BKHW[inside], placed, size),
        placed=placed,
    )


def _window(box: Box, context: float, size: int, width: int, height: int) -> Box:
    """A square around a box, in the picture; beside the square's own border it is cut to the picture."""
    side = max(round(context * max(box[2] - box[0], box[3] - box[1])), size or OWN_SIZE)
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
