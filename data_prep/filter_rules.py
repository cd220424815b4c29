"""Find the rules that a sample breaks: one function for the rules on a single sample, one for comparisons with others.

Shape letters: S samples of a shard, T samples of the whole folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from caption_rules import compile_boilerplate, foreign_share, latin_share
from filter_config import FilterConfig
from measurements import FLAWS, Measurements
from perceptual_hash import later_copies, near_any


def own_reasons(found: Measurements, config: FilterConfig, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Apply the rules that need one sample only.

    Args:
        found: the measurements of one shard.
        scores: `text_image` and `text_text`, CLIP cosines float32 [S], NaN where unknown; empty without such rules.

    Returns:
        For each reason, the samples that it applies to, bool [S]; includes reasons that apply to no sample.
    """
    reasons = {flaw: found.flaws == place for place, flaw in enumerate(FLAWS) if flaw}
    readable = found.sizes.min(1) > 0
    shorter, longer = found.sizes.min(1), found.sizes.max(1)
    if config.min_side is not None:
        reasons["min_side"] = readable & (shorter < config.min_side)
    if config.max_aspect is not None:
        reasons["max_aspect"] = readable & (longer > config.max_aspect * shorter)
    reasons |= _caption_reasons(found, config)
    for place, rule in enumerate(("max_unsafe", "max_watermark")):
        limit = getattr(config, rule)
        if limit is not None:
            reasons[rule] = found.columns[:, place] > limit  # NaN is never larger
    if config.min_text_image is not None:
        reasons["min_text_image"] = scores["text_image"] < config.min_text_image
    if config.min_text_text is not None:
        reasons["min_text_text"] = scores["text_text"] < config.min_text_text
    if config.max_text_text is not None:
        reasons["max_text_text"] = scores["text_text"] > config.max_text_text
    return reasons


def _caption_reasons(found: Measurements, config: FilterConfig) -> dict[str, np.ndarray]:
    """Apply the caption rules; samples that are unpaired or lack a usable caption pass, they have a reason already."""
    boilerplate = compile_boilerplate(config.boilerplate)
    tests = {
        "min_words": lambda caption: len(caption.split()) < config.min_words,
        "max_words": lambda caption: len(caption.split()) > config.max_words,
        "min_latin": lambda caption: latin_share(caption) < config.min_latin,
        "max_foreign": lambda caption: foreign_share(caption) > config.max_foreign,
        "boilerplate": lambda caption: boilerplate.search(caption) is not None,
    }
    tests = {rule: test for rule, test in tests.items() if rule in config.rules()}
    if not tests:
        return {}
    captions = [
        "" if FLAWS[flaw].startswith("caption") or FLAWS[flaw] == "unpaired" else caption
        for flaw, caption in zip(found.flaws.tolist(), found.captions(), strict=True)
    ]
    return {
        rule: np.array([bool(caption) and test(caption) for caption in captions], bool) for rule, test in tests.items()
    }


@dataclass(frozen=True)
class Crowd:
    """What the comparing rules need to know of all samples, in the order of shards and tars.

    Args:
        keys: bytes [T].
        sha256: 16 bytes each [T], the first half of the digest.
        hashes: uint64 [T], perceptual hashes.
        has_hash: bool [T].
        out: bool [T], marked by a rule on the single sample, or left out by subset.py.
    """

    keys: np.ndarray
    sha256: np.ndarray
    hashes: np.ndarray
    has_hash: np.ndarray
    out: np.ndarray


def shared_reasons(crowd: Crowd, config: FilterConfig, tests: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Find the samples that are test pictures, or copies of a sample that stays.

    A copy of a sample that is already out is not marked: of every picture, one good sample stays if there is one.

    Args:
        tests: for each benchmark, the perceptual hashes of its pictures.

    Returns:
        For each reason, bool [T]; does not depend on the order and number of shards.
    """
    reasons = {}
    out = crowd.out.copy()
    for name, hashes in tests.items():
        known = crowd.has_hash & near_any(crowd.hashes, hashes, config.decontaminate_distance)
        reasons[f"decontaminate: {name}"] = known
        out |= known
    if config.duplicates:
        reasons["duplicates"] = _copies(crowd.keys, ~out, lambda order: _repeated(crowd.sha256[order]))
        out |= reasons["duplicates"]
    if config.near_duplicates is not None:
        reasons["near_duplicates"] = _copies(
            crowd.keys,
            ~out & crowd.has_hash,
            lambda order: later_copies(crowd.hashes[order], config.near_duplicates),
        )
    return reasons


def _copies(keys: np.ndarray, considered: np.ndarray, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """bool [T]: the considered samples that are copies of earlier ones; `find` gets them in the order of their keys."""
    places = np.flatnonzero(considered)
    order = places[np.argsort(keys[places], kind="stable")]
    copies = np.zeros(len(keys), bool)
    copies[order] = find(order)
    return copies


def _repeated(values: np.ndarray) -> np.ndarray:
    """bool: true for every value that also occurs earlier."""
    repeated = np.ones(len(values), bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated
