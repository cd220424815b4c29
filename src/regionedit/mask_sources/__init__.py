"""Mask sources. To add one: write `mask_sources/x.py`, add a line to `MASK_SOURCES`; the contract test covers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regionedit.mask_sources.base import MaskSource
from regionedit.mask_sources.box_search import BoxSearch
from regionedit.mask_sources.clip_similarity import ClipSimilarity
from regionedit.mask_sources.difference import Difference
from regionedit.mask_sources.drawn import Drawn
from regionedit.mask_sources.fixed import CentreBox, Everything
from regionedit.mask_sources.ip2p_attention import Ip2pAttention
from regionedit.mask_sources.learned import Learned

if TYPE_CHECKING:
    from regionedit.config import RegionConfig
    from regionedit.mask_sources.base import Encoders, LoadGenerator

MASK_SOURCES: dict[str, type[MaskSource]] = {
    "learned": Learned,
    "clip_similarity": ClipSimilarity,
    "difference": Difference,
    "box_search": BoxSearch,
    "ip2p_attention": Ip2pAttention,
    "drawn": Drawn,
    "everything": Everything,
    "centre_box": CentreBox,
}

__all__ = ["MASK_SOURCES", "MaskSource", "load_mask_source", "require_mask_source"]


def require_mask_source(name: str) -> type[MaskSource]:
    """The class behind `mask_source`; loads nothing.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in MASK_SOURCES:
        raise ValueError(f"mask_source: no mask source {name!r}; there are: {', '.join(sorted(MASK_SOURCES))}")
    return MASK_SOURCES[name]


def load_mask_source(name: str, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> MaskSource:
    """Load a mask source by name; `encoders` and `generator` are called only by those that use them.

    Raises:
        ValueError: unknown name, or what the configuration lacks.
    """
    return require_mask_source(name).load(config, encoders, generator)
