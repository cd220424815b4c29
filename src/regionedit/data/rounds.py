"""Rounds of stored proposals: several for each sample, one round an epoch, perhaps still being made."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from regionedit.config import DataConfig
from regionedit.data.index import part_path
from regionedit.data.manifest import Manifest

log = logging.getLogger(__name__)

LOOK_AGAIN = 2.0
"""Seconds between two looks at a round that is being made."""


def round_folder(proposals: str | Path, number: int) -> Path:
    """Where a round lies: the first in the folder itself."""
    return Path(proposals) / f"round_{number}" if number else Path(proposals)


def open_round(first: Manifest, data: DataConfig, epoch: int) -> Manifest:
    """The manifest with the proposals of an epoch's round; waits until every shard of the round is there.

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
    found = Manifest.open(data.train, proposals=folder, marks=data.marks)
    if found.identity != first.identity:
        raise ValueError(f"data.train: {data.train} has changed since this run began; restore it, or start afresh")
    return found


def _wait(folder: Path, shards: Sequence[str]) -> None:
    told = False
    while lacking := [shard for shard in shards if not part_path(folder, folder, "proposal", shard).exists()]:
        if not told:
            log.warning(
                "data.proposals: %s lacks %d of %d shards; waiting for make_proposals.py",
                folder, len(lacking), len(shards),
            )  # fmt: skip
            told = True
        time.sleep(LOOK_AGAIN)
