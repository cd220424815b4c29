"""Fixed regions that ignore picture and instruction: the baselines that every mask source has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from regionedit.mask_sources.base import MaskSource
from regionedit.records import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.records import Captions, EditRequest


class Everything(MaskSource):
    """The whole picture."""

    refinable: ClassVar[bool] = False

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        mask_B1HW = torch.ones_like(images_BCHW[:, :1])
        return Region(mask_B1HW, mask_B1HW)


class CentreBox(MaskSource):
    """A box in the middle with half the picture's height and width: a quarter of its pixels."""

    refinable: ClassVar[bool] = False

    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        height, width = images_BCHW.shape[-2:]
        mask_B1HW = torch.zeros_like(images_BCHW[:, :1])
        top, left = height // 4, width // 4
        mask_B1HW[..., top : top + max(1, height // 2), left : left + max(1, width // 2)] = 1
        return Region(mask_B1HW, mask_B1HW)
