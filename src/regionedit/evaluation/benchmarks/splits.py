"""Datasets in parquet or arrow shards, read row by row; one row group at a time is in memory.

A split, as on the Hugging Face hub, is the set of shards with one name: `test-00000-of-00003.parquet` and so on.
Nothing is decoded here; a picture is the struct {bytes, path} that `datasets` writes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regionedit.command_line import one_line
from regionedit.evaluation.benchmarks.layout import found_in, require_finished

SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
POINTER = b"version https://git-lfs"
TOGETHER = 8  # rows with pictures that are in memory at the same time
TEXTS_TOGETHER = 4096


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Args:
        name: from the file names; it may be wrong.
        files: shards, in order.
        sizes: number of rows in each shard.
    """

    name: str
    files: tuple[Path, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.sizes)

    def texts(self, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
        """These columns of all rows, for columns without pictures; optional columns may be absent.

        Raises:
            ValueError: a column is missing; the message lists the columns that there are.
        """
        present = _columns(self.files[0])
        if missing := [name for name in columns if name not in present]:
            raise ValueError(f"data: {self.files[0]} has no column {missing[0]!r}; there are: {', '.join(present)}")
        wanted = [*columns, *(name for name in optional if name in present)]
        batches = (batch for path in self.files for batch in _batches(path, wanted, TEXTS_TOGETHER))
        return [row for batch in batches for row in batch.to_pylist()]

    def rows(self, columns: Sequence[str], wanted: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and values of the wanted rows, in ascending order; shards without wanted rows are not opened."""
        first = 0
        for path, size in zip(self.files, self.sizes, strict=True):
            here = sorted({number for number in wanted if first <= number < first + size})
            start = first
            for batch in _batches(path, columns) if here else ():
                end = start + batch.num_rows
                for number in (number for number in here if start <= number < end):
                    yield number, batch.slice(number - start, 1).to_pylist()[0]
                if here[-1] < end:
                    break
                start = end
            first += size

    def stored(self, picture: dict | bytes | None, name: str) -> tuple[Path | bytes, str]:
        """The bytes of a row's picture, or its file; and its name, for messages. ValueError: the row has neither."""
        if isinstance(picture, bytes):
            return picture, name
        if picture and picture.get("bytes"):
            return picture["bytes"], name
        if picture and picture.get("path"):
            return self.files[0].parent / picture["path"], name
        raise ValueError(f"data: {name} holds no picture")


def read_splits(data: str | Path, example: str) -> list[Split]:
    """The splits in a folder of parquet or arrow shards, or of a hub dataset.

    Args:
        data: a folder, in any layout that a download from the hub or `save_to_disk` produces; or `owner/name`, or
            `owner/name@revision`, which `datasets` downloads or finds in its cache.
        example: the hub name of these data, for the message.

    Raises:
        ValueError: there are no files, a download is unfinished, shards are missing or from two revisions, or there is
            no network.
    """
    folder = Path(data)
    if folder.is_dir():
        return _folder_splits(folder, example)
    if HUB_NAME.fullmatch(str(data)) and not folder.exists():
        return _hub_splits(str(data))
    raise ValueError(f"data: {data} is neither a folder of parquet files nor a hub name such as {example}")


def choose_split(splits: Sequence[Split], size: int) -> Split:
    """The split with `size` rows, or the only split; a ValueError if there are several, and none has that size."""
    chosen = next((split for split in splits if len(split) == size), splits[0])
    if len(chosen) != size and len(splits) > 1:
        raise ValueError(
            f"data: no split has {size:,} rows, so give a folder with the split you mean alone. There are: "
            f"{described(splits)}"
        )
    return chosen


def described(splits: Sequence[Split]) -> str:
    """Names and sizes of the splits, for a message."""
    return ", ".join(f"{split.name} ({len(split):,} rows)" for split in splits)


def _folder_splits(folder: Path, example: str) -> list[Split]:
    require_finished(folder)
    found = defaultdict(list)
    for path in sorted(p for suffix in ("parquet", "arrow") for p in folder.rglob(f"*.{suffix}")):
        inside = path.relative_to(folder)
        if not any(part.startswith((".", "cache-")) for part in inside.parts):
            found[inside.parent, _split_name(inside)].append(path)
    if not found:
        raise ValueError(
            f"data: {folder} holds no parquet or arrow file; expected the files of {example}, for example from "
            f"`hf download {example} --repo-type dataset --local-dir {folder}`; found: {found_in(folder)}"
        )
    return [Split(name, tuple(_whole(name, files)), tuple(map(_size, files))) for (_, name), files in found.items()]


def _split_name(inside: Path) -> str:
    """`data/test-00000-of-00003.parquet`, `test/0000.parquet` and `test/data-00000-of-00001.arrow` are all test."""
    shard = SHARD.fullmatch(inside.stem)
    name = shard["split"] if shard else inside.stem
    return inside.parent.name if (name == "data" or name.isdigit()) and inside.parent.name else name


def _whole(name: str, files: Sequence[Path]) -> Sequence[Path]:
    """The shards of one split, after checking that each number occurs exactly once."""
    shards = {path: SHARD.fullmatch(path.stem) for path in files}
    numbered: dict[int, Path] = {}
    for path, shard in shards.items():
        if shard is None:
            continue
        if other := numbered.get(int(shard["number"])):
            raise ValueError(
                f"data: {other} and {path.name} are the same shard of split {name!r} from two revisions; delete one "
                "set, or download into an empty folder"
            )
        numbered[int(shard["number"])] = path
    total = max((int(shard["total"]) for shard in shards.values() if shard), default=0)
    if missing := sorted(set(range(total)) - set(numbered)):
        raise ValueError(
            f"data: split {name!r} in {files[0].parent} lacks {len(missing)} of {total} shards, the first is number "
            f"{missing[0]:05d}: a half-finished download?"
        )
    return files


def _hub_splits(data: str) -> list[Split]:
    import datasets

    name, _, revision = data.partition("@")
    try:
        found = datasets.load_dataset(name, revision=revision or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        pinned = f" --revision {revision}" if revision else ""
        raise ValueError(
            f"data: {data} is not a folder, and the hub does not give it ({one_line(error, 150)}); "
            f"with a network, run `hf download {name} --repo-type dataset{pinned} --local-dir DIR`, then point data "
            "to DIR"
        ) from None
    files = {split: tuple(Path(f["filename"]) for f in rows.cache_files) for split, rows in found.items()}
    return [Split(split, paths, tuple(map(_size, paths))) for split, paths in files.items()]


def _size(path: Path) -> int:
    if path.suffix == ".arrow":
        return sum(batch.num_rows for batch in _batches(path, ()))
    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return pq.read_schema(path).names
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema.names


def _batches(path: Path, columns: Sequence[str], together: int = TOGETHER) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix == ".parquet":
            # Without pre_buffer and with memory_map, about two row groups are in memory at most (`datasets` uploads row
            # groups of 100 rows).
            with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
                yield from file.iter_batches(together, columns=list(columns))
        else:
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
                yield from (batch.select(list(columns)) for batch in stream)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    with path.open("rb") as file:
        is_pointer = file.read(len(POINTER)) == POINTER
    what = "a Git LFS pointer, not the data: `git lfs pull`" if is_pointer else "truncated: a half-finished download?"
    return ValueError(f"data: {path} is {what} ({one_line(error, 100)})")
