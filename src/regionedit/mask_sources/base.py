"""The interface of every mask source.

Shape letters: B batch, H W pixels of the pictures as they came, N patches of a square grid, K instructions.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from regionedit import masks
from regionedit.records import Region

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
    from regionedit.generators import Generator, Need
    from regionedit.records import Captions, EditRequest

    Encoders = Callable[[], tuple[FrozenCLIP, FrozenInstructionEncoder]]
    LoadGenerator = Callable[[], Generator]


class MaskSource(ABC):
    """Finds where to edit.

    Attributes:
        captions: which captions `find` reads: `source`, of the pictures as they are; `target`, of the edited ones.
        needs_keywords: `find` reads which word of each instruction names the object.
        marks: which marks of a request (mask, box, click) `find` reads.
        uses_generator: `load` calls `generator`.
        refinable: `region.refine` may tighten the regions to an object; false for regions that the user marked and for
            fixed regions.
    """

    captions: ClassVar[frozenset[str]] = frozenset()
    needs_keywords: ClassVar[bool] = False
    marks: ClassVar[frozenset[str]] = frozenset()
    uses_generator: ClassVar[bool] = False
    refinable: ClassVar[bool] = True

    @classmethod
    def captions_with(cls, needs: Need) -> frozenset[str]:
        """The captions that `find` reads with a generator that follows `needs`; loads nothing."""
        return cls.captions

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        """Load the source; by default it needs no models. Calling `encoders` or `generator` loads the frozen models,
        once for all sources.

        Raises:
            ValueError: something is missing in the configuration; the message says what to do.
        """
        return cls()

    def to(self, device: str | torch.device) -> Self:
        """Move the source's own models; those from `encoders` and `generator` are on their device already."""
        return self

    def using(self, config: RegionConfig) -> Self:
        """A source with the same models and other settings of the mask."""
        other = copy.copy(self)
        other.config = config
        return other

    @abstractmethod
    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        """Regions of B pictures of one size; float on the CPU, [0, 1], 1 = edit, at the pictures' own size.

        `finish` later applies grow and feather to every mask.

        Raises:
            ValueError: a request lacks something that this source needs.
        """


def region_from_patches(patches_BN: Tensor, grid: int, size: tuple[int, int], config: RegionConfig) -> Region:
    """Upsample maps on a [grid, grid] of patches to pictures of `size` (H, W) and threshold them to masks."""
    patches_BN = patches_BN.detach().float().cpu()
    probability_B1HW = masks.upsample(patches_BN, grid, size, config.upsample)
    return Region(cut_masks(probability_B1HW, (grid, grid), config), probability_B1HW, patches_BN=patches_BN)


def cut_masks(probability_BKHW: Tensor, patches: tuple[float, float], config: RegionConfig) -> Tensor:
    """Masks from picture-sized maps, each on its own: thresholded, then dilated. [B, K, H, W], 0 or 1.

    Rows and columns are dilated separately, because patches of a picture that is not square are not square.

    Args:
        patches: height and width of the picture, in patches of the map's own grid.
    """
    size = probability_BKHW.shape[-2:]
    single = masks.binarize(probability_BKHW, config.threshold).flatten(0, 1)[:, None]
    rows, columns = (round(config.dilate * side / count) for side, count in zip(size, patches, strict=True))
    single = masks.dilate(single, (rows, columns))
    return single.reshape(probability_BKHW.shape)
