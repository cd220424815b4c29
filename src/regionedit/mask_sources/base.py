"""What every mask source promises.

Shape letters: B batch, H W pixels of the pictures as they came, N patches of a square grid, K instructions.
"""

from __future__ import annotations

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
    """Says where to edit.

    Attributes:
        captions: which captions `find` reads: `source`, of the pictures as they are; `target`, of the edited ones.
        needs_keywords: `find` reads which word of each instruction names the thing.
        reads: which of a request's marks (mask, box, click) `find` looks at.
        refinable: its regions are found, more or less well, on a thing, which `region.refine` can make tight; false
            where a person said what is meant, and where nothing was looked at.
    """

    captions: ClassVar[frozenset[str]] = frozenset()
    needs_keywords: ClassVar[bool] = False
    reads: ClassVar[frozenset[str]] = frozenset()
    refinable: ClassVar[bool] = True

    @classmethod
    def captions_with(cls, needs: Need) -> frozenset[str]:
        """The captions that `find` reads when a generator that follows `needs` edits; loads nothing."""
        return cls.captions

    @classmethod
    @abstractmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        """Make the source ready; `encoders` and `generator` load what is frozen when they are called, once for all.

        Raises:
            ValueError: what the configuration lacks, and the way out.
        """

    def to(self, device: str | torch.device) -> Self:
        """Move models of the source's own; what `encoders` and `generator` gave is where it should be."""
        return self

    @abstractmethod
    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        """Regions of B pictures of one size; float on the CPU, [0, 1], 1 = edit, at the pictures' own size.

        What `finish` does to every mask (grow, feather) is not done here.

        Raises:
            ValueError: a request lacks what this source needs.
        """


def region_from_patches(patches_BN: Tensor, grid: int, size: tuple[int, int], config: RegionConfig) -> Region:
    """Enlarge maps on a [grid, grid] of patches to pictures of `size` (H, W) and cut out the masks."""
    patches_BN = patches_BN.detach().float().cpu()
    probability_B1HW = masks.upsample(patches_BN, grid, size, config.upsample)
    return Region(cut_masks(probability_B1HW, (grid, grid), config), probability_B1HW, patches_BN=patches_BN)


def cut_masks(probability_BKHW: Tensor, patches: tuple[float, float], config: RegionConfig) -> Tensor:
    """Masks of picture-sized maps, each for itself: above the threshold, dilated. [B, K, H, W], 0 or 1.

    The mask grows by rows and columns apart: a patch is not square in a picture that is not.

    Args:
        patches: how many the picture is high and wide, of the map's own grid.
    """
    size = probability_BKHW.shape[-2:]
    single = masks.binarize(probability_BKHW, config.threshold).flatten(0, 1)[:, None]
    rows, columns = (round(config.dilate * side / count) for side, count in zip(size, patches, strict=True))
    single = masks.dilate(single, (rows, columns))
    return single.reshape(probability_BKHW.shape)
