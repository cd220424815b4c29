"""Mask sources. To add one: write `mask_sources/x.py`, add a line to `MASK_SOURCES`; the contract test covers it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from regionedit.mask_sources.algebra import parse
from regionedit.mask_sources.base import MaskSource
from regionedit.mask_sources.box_search import BoxSearch
from regionedit.mask_sources.clip_similarity import ClipSimilarity
from regionedit.mask_sources.difference import Difference
from regionedit.mask_sources.drawn import Drawn
from regionedit.mask_sources.finder import Finder, Plan
from regionedit.mask_sources.fixed import CentreBox, Everything
from regionedit.mask_sources.ip2p_attention import Ip2pAttention
from regionedit.mask_sources.learned import Learned
from regionedit.mask_sources.sam import Sam

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
    "sam": Sam,
    "everything": Everything,
    "centre_box": CentreBox,
}

__all__ = [
    "MASK_SOURCES",
    "Finder",
    "MaskSource",
    "load_mask_source",
    "require_mask_source",
    "wanted_mask_source",
    "with_untrained",
]


def require_mask_source(text: str) -> Plan:
    """What a name or an expression such as `learned + sam - drawn` asks for; loads nothing.

    Raises:
        ValueError: no expression, with the place; an unknown name, with the known ones.
    """
    expression = parse(text)
    for name in expression.names:
        if name not in MASK_SOURCES:
            raise ValueError(f"mask_source: no mask source {name!r}; there are: {', '.join(sorted(MASK_SOURCES))}")
    return Plan(expression, {name: MASK_SOURCES[name] for name in expression.names})


def with_untrained(text: str, region: RegionConfig) -> tuple[str, str]:
    """The mask source that can be used now, and what its results have to say.

    While no region is trained `region.untrained` takes the place of `learned`; without it `learned` stays, and says
    when it is loaded what to do.
    """
    if region.checkpoint is not None or region.untrained is None or "learned" not in require_mask_source(text).kinds:
        return text, ""
    stand_in = region.untrained if text.strip() == "learned" else f"({region.untrained})"
    return (
        re.sub(r"\blearned\b", stand_in, text),
        f"no region is trained for these models (region.checkpoint), {region.untrained} says where",
    )


def wanted_mask_source(configured: str, marks: frozenset[str]) -> str:
    """The mask source of a request with these marks: what a person marked is never passed over in silence.

    It is the configured one if that reads all the marks; else `sam` for a click, and `drawn` for a mask or a box.
    """
    if marks <= require_mask_source(configured).reads:
        return configured
    return "sam" if "click" in marks else "drawn"


def load_mask_source(text: str, config: RegionConfig, encoders: Encoders, generator: LoadGenerator) -> Finder:
    """Load a mask source or an expression; `encoders` and `generator` are called only by those that use them.

    Raises:
        ValueError: unknown name, or what the configuration lacks.
    """
    return require_mask_source(text).load(config, encoders, generator)
