"""Which shards a folder holds, by their names: `00000.tar`, `cc3m-train-0000.tar`, `train-00000-of-00281.tar`.

A shard's name has no dot and ends with its number, or with `-of-` and the number of shards. Shards with the same
letters before the number are a series, whose numbers have no gaps unless the caller allows them.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<series>[^.]*?)(?P<number>\d+)(-of-\d+)?")
_SIDECAR = ".instructions.jsonl"


def find_shards(folder: Path, allow_gaps: bool = False) -> tuple[str, ...]:
    """Names of the shards in a folder, without suffix, sorted by series and number.

    Args:
        allow_gaps: only warn of missing shards.

    Raises:
        ValueError: no folder, no shards, a gap in their numbers, or a sidecar without its shard.
    """
    return shards_among(names_in(folder), str(folder), allow_gaps)


def names_in(folder: Path) -> set[str]:
    """Names of all files of a folder. Raises ValueError: there is no such folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; pack shards into it or correct the path")
    return {entry.name for entry in os.scandir(folder)}


def shards_among(names: Collection[str], place: str, allow_gaps: bool = False) -> tuple[str, ...]:
    """The shards among the names of a folder's files; `place` is the folder in messages. Raises as `find_shards`."""
    shards: dict[tuple[str, int], str] = {}
    for name in sorted(names):
        if name.endswith(".tar") and (found := _NAME.fullmatch(name[:-4])):
            other = shards.setdefault((found["series"], int(found["number"])), name[:-4])
            if other != name[:-4]:
                raise ValueError(
                    f"{place}: two shards share a number (such as 1.tar and 01.tar): {other}.tar and {name}; "
                    "rename one of them"
                )
    if not shards:
        raise ValueError(f"{place}: holds no shards named like 00000.tar; pack some or correct the path")
    sidecars = {name.removesuffix(_SIDECAR) for name in names if name.endswith(_SIDECAR)}
    orphans = {stem for stem in sidecars - set(shards.values()) if _NAME.fullmatch(stem)}
    missing = sorted(orphans | {*_gaps(shards)})
    if missing:
        report_missing(missing, len(shards) + len(missing), place, allow_gaps)
    return tuple(shards[key] for key in sorted(shards))


def report_missing(missing: list[str], expected: int, place: str, allow_gaps: bool) -> None:
    """Warn of missing shards, or raise ValueError where gaps are not allowed; names the first and the fix."""
    example = f"{missing[0]}.tar"
    if allow_gaps:
        log.warning("%s: %d of %d shards are missing, such as %s", place, len(missing), expected, example)
        return
    raise ValueError(
        f"{place.rstrip('/')}/{example}: missing shard ({len(missing)} of {expected} are); restore it or, if the crawl "
        "has gaps, set data.allow_gaps to true"
    )


def _gaps(shards: dict[tuple[str, int], str]) -> Iterable[str]:
    """Names of the shards that are missing within each series."""
    series: dict[str, dict[int, str]] = defaultdict(dict)
    for (letters, number), name in shards.items():
        series[letters][number] = name
    for letters, present in series.items():
        like = _NAME.fullmatch(present[min(present)])
        for number in set(range(min(present), max(present))) - present.keys():
            yield f"{letters}{number:0{len(like['number'])}d}{like[3] or ''}"
