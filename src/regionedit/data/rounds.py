"""Rounds of stored proposals: several proposals per sample, one round per epoch; a round may still be in the making."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from regionedit.config import DataConfig
from regionedit.data.held_out import split
from regionedit.data.index import PARTS
from regionedit.data.manifest import Manifest

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Seconds between two checks of a round that is not complete yet."""


def round_folder(proposals: str | Path, number: int) -> Path:
    """The folder of a round; that of the first is `proposals` itself."""
    return Path(proposals) / f"round_{number}" if number else Path(proposals)


def open_round(first: Manifest, data: DataConfig, epoch: int) -> Manifest:
    """The manifest with the proposals of an epoch's round; waits until every shard of the round exists.

    Args:
        first: the manifest of the first round.

    Raises:
        ValueError: the shards themselves have changed since the run began.
    """
    number = epoch % data.proposal_rounds
    if number == 0:
        return first
    folder = round_folder(data.proposals, number)
    _wait(folder, first.shards)
    manifest, _ = split(
        Manifest.open(data.train, proposals=folder, marks=data.marks, allow_gaps=data.allow_gaps), data.held_out
    )
    if manifest.identity != first.identity:
        raise ValueError(f"data.train: {data.train} has changed since this run began; restore it, or start again")
    return manifest


def _wait(folder: Path, shards: Sequence[str]) -> None:
    warned = False
    while missing := [shard for shard in shards if not (folder / PARTS["proposal"].format(shard)).exists()]:
        if not warned:
            log.warning(
                "data.proposals: %s lacks %d of %d shards; waiting for make_proposals.py",
                folder, len(missing), len(shards),
            )  # fmt: skip
            warned = True
        time.sleep(POLL_SECONDS)
