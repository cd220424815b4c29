"""From the setting `mask_source` to regions: find each part, refine it if configured, join the parts, finish."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from regionedit.mask_operations import operated
from regionedit.mask_sources.algebra import Expression, Name
from regionedit.mask_sources.refine import Refiner
from regionedit.mask_sources.segmenter import is_here, load_segmenter
from regionedit.masks import divide, feather, grow
from regionedit.records import Region
from regionedit.results import joined

if TYPE_CHECKING:
    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.generators import Need
    from regionedit.mask_sources.base import Encoders, LoadGenerator, MaskSource
    from regionedit.records import Captions, EditRequest

log = logging.getLogger(__name__)

WHOLE_PICTURE_NOTE = "no region was found: the whole picture is edited"
NOTHING_NOTE = "the instruction seems to be fulfilled already: nothing is edited"
LARGE_NOTE = "most of the picture is meant: the whole picture is edited"


@dataclass(frozen=True)
class Plan:
    """A parsed `mask_source`, and the class behind each of its names. Nothing is loaded yet."""

    expression: Expression
    kinds: Mapping[str, type[MaskSource]]

    def captions_with(self, needs: Need) -> frozenset[str]:
        """The captions, `source` and `target`, that any part reads with a generator of these needs."""
        return frozenset().union(*(kind.captions_with(needs) for kind in self.kinds.values()))

    @property
    def needs_keywords(self) -> bool:
        return any(kind.needs_keywords for kind in self.kinds.values())

    @property
    def uses_generator(self) -> bool:
        return any(kind.uses_generator for kind in self.kinds.values())

    @property
    def marks(self) -> frozenset[str]:
        return frozenset().union(*(kind.marks for kind in self.kinds.values()))

    def load(self, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Finder:
        """Load every part; `encoders` and `generator` are called only if a part uses them.

        Raises:
            ValueError: something is missing in the configuration.
        """
        parts = {name: kind.load(config, encoders, generator) for name, kind in self.kinds.items()}
        refine = config.refine != "none" and any(kind.refinable for kind in self.kinds.values())
        if refine and config.refine == "auto" and not is_here(config.sam):
            log.warning("region.refine auto: %s is not on this machine; regions are not refined", config.sam)
            refine = False
        refiner = Refiner(load_segmenter(config.sam)) if refine else None
        return Finder(self.expression, parts, refiner, config)


class Finder:
    """A loaded mask source or expression, which joins the parts; `find` is that of `MaskSource`. The refiner tightens
    the parts' regions to objects."""

    def __init__(
        self, expression: Expression, parts: Mapping[str, MaskSource], refiner: Refiner | None, config: RegionConfig
    ):
        self.expression = expression
        self.parts = parts
        self.refiner = refiner
        self.config = config

    def to(self, device: str | torch.device) -> Finder:
        """Move the parts' own models; shared encoders and generators are moved by their owner."""
        for part in self.parts.values():
            part.to(device)
        if self.refiner is not None:
            self.refiner.segmenter.to(device)
        return self

    def using(self, config: RegionConfig) -> Finder:
        """A finder with the same models and other settings of `region`, such as threshold, grow and if_empty."""
        parts = {name: part.using(config) for name, part in self.parts.items()}
        return Finder(self.expression, parts, self.refiner, config)

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        """Regions of B pictures of one size; float on the CPU, [0, 1], 1 = edit, at the pictures' own size.

        Raises:
            ValueError: a request lacks something that a part needs.
        """
        found = {}
        for name, part in self.parts.items():
            found[name] = part.find(images_BCHW, requests, captions)
            if self.refiner is not None and part.refinable:
                found[name] = self.refiner.refine(images_BCHW, found[name])
            if part.refinable:
                found[name] = _everything_or_nothing(found[name], self.config)
        return finish(_operated(self._joined(found), requests), self.config)

    def _joined(self, found: Mapping[str, Region]) -> Region:
        """Join masks and probabilities by the expression. The parts of the instructions come from the first source that
        separates them, cut to the joined mask. A map on one source's own grid does not describe the joined region and
        is left out."""
        if isinstance(self.expression, Name):
            return found[self.expression.name]
        mask_B1HW = self.expression.evaluate({name: region.mask_B1HW for name, region in found.items()})
        probability_B1HW = self.expression.evaluate({name: region.probability_B1HW for name, region in found.items()})
        separated = [r.per_instruction_BKHW for r in found.values() if r.per_instruction_BKHW is not None]
        parts_BKHW = divide(mask_B1HW, separated[0]) if separated else None
        notes_by_part = [region.notes for region in found.values() if region.notes]
        notes = tuple(joined(*of_picture) for of_picture in zip(*notes_by_part, strict=True))
        return Region(mask_B1HW, probability_B1HW, parts_BKHW, notes=notes)


def _everything_or_nothing(region: Region, config: RegionConfig) -> Region:
    """The region of everything where nothing was found or most of the picture is meant: `if_empty`, `whole_above`.
    Where nothing was found because nothing is to be done, it stays empty: `nothing_below`."""
    mean_B = region.probability_B1HW.flatten(1).mean(1)
    empty_B = region.mask_B1HW.flatten(1).amax(1) == 0
    done_B, large_B = empty_B & (mean_B < config.nothing_below), mean_B > config.whole_above
    empty_B = empty_B & ~done_B & (config.if_empty == "everything")
    whole_B = empty_B | large_B
    if not (whole_B | done_B).any():
        return region
    mask_B1HW, parts_BKHW = region.mask_B1HW.clone(), region.per_instruction_BKHW
    mask_B1HW[whole_B] = 1
    if parts_BKHW is not None:
        parts_BKHW = parts_BKHW.clone()
        parts_BKHW[whole_B, :1] = 1
    before = region.notes or ("",) * len(whole_B)
    reasons = [
        LARGE_NOTE if large else WHOLE_PICTURE_NOTE if empty else NOTHING_NOTE if done else ""
        for large, empty, done in zip(large_B, empty_B, done_B, strict=True)
    ]
    notes = map(joined, before, reasons)
    return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW, notes=tuple(notes))


def _operated(region: Region, requests: Sequence[EditRequest]) -> Region:
    """The region after the mask operations of each request. The parts of several instructions follow the mask."""
    if not any(request.mask_operations for request in requests):
        return region
    masks = [
        torch.from_numpy(operated(mask_HW.numpy(), request.mask_operations))
        for mask_HW, request in zip(region.mask_B1HW[:, 0], requests, strict=True)
    ]
    return _with_mask(region, torch.stack(masks)[:, None])


def _with_mask(region: Region, mask_B1HW: Tensor) -> Region:
    """The region with another mask; a new pixel belongs to the nearest part."""
    parts_BKHW = region.per_instruction_BKHW
    parts_BKHW = None if parts_BKHW is None else divide(mask_B1HW, parts_BKHW)
    return replace(region, mask_B1HW=mask_B1HW, per_instruction_BKHW=parts_BKHW)


def finish(region: Region, config: RegionConfig) -> Region:
    """The region with `grow` and `feather` applied, in this order; both are pixels of the picture.

    The mask source itself applies `threshold` and `dilate` (in patches) on its own grid. Probabilities do not change.
    The parts of several instructions follow the mask: a new pixel belongs to the nearest part.
    """
    if not (config.grow or config.feather):
        return region
    return _with_mask(region, feather(grow(region.mask_B1HW, config.grow), config.feather))


def grown(region: Region, places: Sequence[int], pixels: int, feather_pixels: float) -> Region:
    """The region with the masks at `places` grown by `pixels`, and then feathered; rounded to 8 bits."""
    mask_B1HW = region.mask_B1HW.clone()
    hard_P1HW = (mask_B1HW[list(places)] > 0).float()
    mask_B1HW[list(places)] = (feather(grow(hard_P1HW, pixels), feather_pixels) * 255).round() / 255
    return _with_mask(region, mask_B1HW)
