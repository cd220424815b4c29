"""The generator's own estimate: where its predictions for the target caption and the source caption differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from regionedit import masks
from regionedit.generators import GENERATORS, TextComparer
from regionedit.mask_sources.base import MaskSource
from regionedit.records import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.generators import Need
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest


class Difference(MaskSource):
    """DiffEdit's mask (Couairon et al. 2022): the difference of the noise predictions for both captions, thresholded.

    A generator that follows instructions predicts with and without the instruction instead (as in Watch Your Steps,
    Mirzaei et al. 2023), and no captions are needed. Needs no training. There is no grid of patches, so `region.grow`
    widens the mask and `region.dilate` does not.
    """

    uses_generator = True

    captions: ClassVar[frozenset[str]] = frozenset({"source", "target"})

    def __init__(self, generator: TextComparer, config: RegionConfig):
        self.generator = generator
        self.config = config

    @classmethod
    def captions_with(cls, needs: Need) -> frozenset[str]:
        return frozenset() if needs == "instruction" else cls.captions

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        loaded = generator()
        if not isinstance(loaded, TextComparer):
            able = sorted(name for name, kind in GENERATORS.items() if issubclass(kind, TextComparer))
            raise ValueError(
                f"mask_source: 'difference' needs a generator that can compare two texts, {type(loaded).__name__} "
                f"cannot; use generator.name {' or '.join(able)}, or another mask source"
            )
        return cls(loaded, config)

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        seeds = [request.noise for request in requests]
        if self.generator.needs == "instruction":
            source, target = [""] * len(requests), [request.instruction for request in requests]
        else:
            source, target = ([getattr(c, which) for c in captions] for which in ("source", "target"))
        probability_B1HW = self.generator.compare_texts(images_BCHW, source, target, seeds).float().cpu()
        return Region(masks.binarize(probability_B1HW, self.config.threshold), probability_B1HW)
