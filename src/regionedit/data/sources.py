"""Where shards are: the entries of `data.train` become sources, each a folder or URL with its shards.

An entry is a folder, a URL or a pattern with braces: `data/crawl`, `data/crawl/{00000..00331}.tar`, `data/{a,b}`,
`s3://bucket/crawl/{00000..00331}.tar`. Shards of a URL stay there and are read by ranges of bytes; their small sidecars
are copied to ~/.cache/regionedit. The shards of one source are named like their files, those of several sources
`{name of the folder}/{shard}`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from regionedit.data import remote
from regionedit.data.marks import SIDECARS
from regionedit.data.shard_names import names_in, report_missing, shards_among
from regionedit.files import write_atomic

_COPIED = (".instructions.jsonl", *(name.removeprefix("{}") for name in SIDECARS))
_RECORD = "copied.json"


@dataclass(frozen=True)
class Source:
    """A folder or URL with some or all of its shards.

    Args:
        place: the folder or URL.
        folder: the folder, or the one to which the sidecars of a URL were copied.
        shards: names without suffix, in order.
        stamps: of each shard of a URL; None for a folder.
    """

    place: str
    folder: Path
    shards: tuple[str, ...]
    stamps: Mapping[str, remote.Stamp] | None = None

    @property
    def name(self) -> str:
        return self.place.rstrip("/").rpartition("/")[2]

    def tar(self, shard: str) -> Path | str:
        """The shard itself: a path, or a URL."""
        return self.folder / f"{shard}.tar" if self.stamps is None else f"{self.place}/{shard}.tar"


def open_sources(entries: Sequence[str], allow_gaps: bool) -> tuple[Source, ...]:
    """The sources of `data.train`, in its order; patterns of the same folder form one source.

    Raises:
        ValueError: a folder or shard that does not exist or is named twice, folders of the same name, a storage that
            cannot be reached.
    """
    chosen: dict[str, list[str] | None] = {}  # None: all shards of the place
    for path in (path for entry in entries for path in (braceexpand(entry) if "{" in entry else [entry])):
        place, _, file = path.rpartition("/") if path.endswith(".tar") else (path.rstrip("/"), "", "")
        known = chosen.get(place, [])
        if known is None or file[:-4] in known or (place in chosen and not file):
            raise ValueError(f"{path}: named twice; name every folder and every shard once")
        chosen[place] = [*known, file[:-4]] if file else None
    sources = tuple(_open(place, shards, allow_gaps) for place, shards in chosen.items())
    names = [source.name for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"{twice}: two folders have this name, with which their shards are named; link to one under another name"
        )
    return sources


def _open(place: str, chosen: Sequence[str] | None, allow_gaps: bool) -> Source:
    if "://" not in place:
        names = names_in(Path(place))
        shards = _shards(chosen, names, place, allow_gaps)
        return Source(place, Path(place), shards)
    names = remote.list_names(place)
    if not names and chosen is None:
        raise ValueError(
            f"{place}: no such folder, or it cannot be listed; name its shards, such as {place}/{{00000..00099}}.tar"
        )
    wanted = chosen if chosen is not None else shards_among(names, place, allow_gaps)
    sidecars = [f"{shard}{suffix}" for shard in wanted for suffix in _COPIED]
    stamps = remote.stamps(place, [f"{shard}.tar" for shard in wanted] + sidecars)
    shards = _shards(wanted, stamps, place, allow_gaps)
    folder = cache_folder() / "remote" / hashlib.sha256(place.encode()).hexdigest()[:24]
    _copy(place, {name: stamps[name] for name in sidecars if name in stamps}, sidecars, folder)
    return Source(place, folder, shards, {shard: stamps[f"{shard}.tar"] for shard in shards})


def _shards(chosen: Sequence[str] | None, names: Collection[str], place: str, allow_gaps: bool) -> tuple[str, ...]:
    if chosen is None:
        return shards_among(names, place, allow_gaps)
    if missing := [shard for shard in chosen if f"{shard}.tar" not in names]:
        if len(missing) == len(chosen):
            allow_gaps = False
        report_missing(missing, len(chosen), place, allow_gaps)
    return tuple(shard for shard in chosen if f"{shard}.tar" in names)


def cache_folder() -> Path:
    """This user's cache of manifests and of the sidecars of remote shards."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regionedit"


def _copy(place: str, stamps: Mapping[str, remote.Stamp], sidecars: Sequence[str], folder: Path) -> None:
    """Bring the copies of these sidecars up to date."""
    record = folder / _RECORD
    copied = json.loads(record.read_text()) if record.is_file() else {}
    outdated = [name for name, stamp in stamps.items() if copied.get(name) != [*stamp] or not (folder / name).is_file()]
    gone = [name for name in sidecars if name not in stamps and name in copied]
    remote.copy(place, folder, outdated)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    if outdated or gone:
        kept = {name: stamp for name, stamp in copied.items() if name not in gone} | stamps
        write_atomic(record, json.dumps(kept).encode())
