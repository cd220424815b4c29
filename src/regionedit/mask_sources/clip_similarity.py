"""An untrained baseline: how similar CLIP finds each patch to the source caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F

from regionedit.mask_sources.base import MaskSource, region_from_patches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from regionedit.config import RegionConfig
    from regionedit.encoders import FrozenCLIP
    from regionedit.mask_sources.base import Encoders, LoadGenerator
    from regionedit.records import Captions, EditRequest, Region


class ClipSimilarity(MaskSource):
    """Cosine of the source caption T_o and every projected patch, min-max normalised in each picture."""

    captions: ClassVar[frozenset[str]] = frozenset({"source"})

    def __init__(self, clip: FrozenCLIP, config: RegionConfig):
        self.clip = clip
        self.config = config

    @classmethod
    def load(cls, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Self:
        return cls(encoders()[0], config)

    @torch.no_grad()
    def find(self, images_BCHW: Tensor, requests: Sequence[EditRequest], captions: Sequence[Captions | None]) -> Region:
        patches_BND = self.clip.encode_image(images_BCHW).patches_BND
        text_BD = self.clip.encode_text([caption.source for caption in captions])
        similarity_BN = similarity(patches_BND, text_BD)
        return region_from_patches(similarity_BN, self.clip.grid, tuple(images_BCHW.shape[-2:]), self.config)


def similarity(patches_BND: Tensor, text_BD: Tensor) -> Tensor:
    """Cosine similarity of patches and text, min-max normalised over each picture: [B, N] in [0, 1].

    If all patches of a picture are alike, there is no region: zeros.
    """
    cosine_BN = torch.einsum("bnd,bd->bn", F.normalize(patches_BND, dim=-1), F.normalize(text_BD, dim=-1))
    low_B1, high_B1 = cosine_BN.amin(1, keepdim=True), cosine_BN.amax(1, keepdim=True)
    return (cosine_BN - low_B1) / (high_B1 - low_B1).clamp_min(1e-6)
