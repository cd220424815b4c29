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
from regionedit.mask_sources.finder import Finder, Plan, grown
from regionedit.mask_sources.fixed import CentreBox, Everything
from regionedit.mask_sources.ip2p_attention import Ip2pAttention
from regionedit.mask_sources.learned import Learned
from regionedit.mask_sources.sam import Sam
from regionedit.mask_sources.vlm_box import VlmBox

if TYPE_CHECKING:
    from regionedit.config import RegionConfig

MASK_SOURCES: dict[str, type[MaskSource]] = {
    "learned": Learned,
    "clip_similarity": ClipSimilarity,
    "difference": Difference,
    "box_search": BoxSearch,
    "vlm_box": VlmBox,
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
    "grown",
    "require_mask_source",
    "wanted_mask_source",
    "with_untrained",
]


def require_mask_source(text: str) -> Plan:
    """The plan behind a name or an expression such as `learned + sam - drawn`; loads nothing.

    Raises:
        ValueError: an invalid expression, with the position of the error; an unknown name, with the known ones.
    """
    expression = parse(text)
    for name in expression.names:
        if name not in MASK_SOURCES:
            raise ValueError(f"mask_source: no mask source {name!r}; there are: {', '.join(sorted(MASK_SOURCES))}")
    return Plan(expression, {name: MASK_SOURCES[name] for name in expression.names})


def with_untrained(text: str, region: RegionConfig) -> tuple[str, str]:
    """The mask source to use now, and a note for its results.

    While no region predictor is trained, `region.untrained` replaces `learned`. Without it `learned` stays, and loading
    it raises an error that says what to do.
    """
    if region.checkpoint is not None or region.untrained is None or "learned" not in require_mask_source(text).kinds:
        return text, ""
    replacement = region.untrained if text.strip() == "learned" else f"({region.untrained})"
    return (
        re.sub(r"\blearned\b", replacement, text),
        f"no predictor is trained for these models (region.checkpoint): {region.untrained} finds the region",
    )


def wanted_mask_source(configured: str, marks: frozenset[str]) -> str:
    """The mask source for a request with these marks; no mark of the user is ignored silently.

    It is the configured one if that reads all the marks; else `sam` for a click, and `drawn` for a mask or a box.
    """
    if marks <= require_mask_source(configured).marks:
        return configured
    return "sam" if "click" in marks else "drawn"
