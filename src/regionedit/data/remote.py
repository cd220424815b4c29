"""Files on object storage, on the hub or behind HTTP, through fsspec: sizes, whole files, ranges of bytes.

A URL such as `s3://bucket/crawl`, `hf://datasets/NAME/crawl` or `https://host/crawl` works if fsspec knows its
protocol; s3 needs the package s3fs, gs gcsfs. Credentials come from the environment, as each protocol documents. A read
that fails is tried `ATTEMPTS` times, with growing pauses; then an error names the file.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from regionedit.command_line import one_line
from regionedit.files import write_atomic

log = logging.getLogger(__name__)
Result = TypeVar("Result")

ATTEMPTS = 6
PAUSE = 0.5
"""Seconds before the second attempt; each further pause is twice as long."""
_AHEAD = 2**22  # bytes; most of a shard is read when it is indexed, so few large ranges are fastest
_AT_ONCE = 16  # requests of one process for sizes and whole files
_VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "Last-Modified", "LastModified", "mtime", "updated")

Stamp = tuple[int | None, str]
"""Number of bytes and version of a file, the latter empty where the storage gives none."""


def list_names(url: str) -> set[str]:
    """Names of the files in a folder; empty if the storage cannot list it. Raises ValueError: no such folder."""
    return set(_listing(url))


def stamps(url: str, names: Collection[str]) -> dict[str, Stamp]:
    """Stamps of those of the named files that exist. Raises ValueError: the storage cannot be reached."""
    listing = _listing(url)
    found = {name: info for name in names if (info := listing.get(name)) and info.get("size") is not None}
    ask = [name for name in names if name not in found and (name in listing or not listing)]

    def info(name: str) -> dict[str, Any] | None:
        def facts() -> dict[str, Any] | None:
            try:
                return _call("info", f"{url}/{name}")
            except FileNotFoundError:
                return None

        return _repeat(facts, f"{url}/{name}")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found |= {name: facts for name, facts in zip(ask, pool.map(info, ask), strict=True) if facts is not None}
    return {name: (facts.get("size"), _version(facts)) for name, facts in found.items()}


def copy(url: str, folder: Path, names: Sequence[str]) -> None:
    """Copy files of a URL to a folder, several at once, each whole or not at all.

    Raises:
        ValueError: one is missing or cannot be read.
        OSError: no room, no permission.
    """

    def one(name: str) -> None:
        file = f"{url}/{name}"
        write_atomic(folder / name, _repeat(lambda: _call("cat_file", file), file))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(one, names))


def read_range(url: str, offset: int, length: int) -> bytes:
    """A range of bytes, with one request.

    Raises:
        ValueError: the file is missing, is shorter, or cannot be read after all attempts; names it.
    """

    def read() -> bytes:
        data = _call("cat_file", url, start=offset, end=offset + length)
        if len(data) > length:
            raise ValueError(f"{url}: the server ignores ranges of bytes; copy the shards to a local folder")
        if len(data) < length:
            raise ConnectionError(f"{len(data)} of {length} bytes came")
        return data

    return _repeat(read, url) if length else b""


def open_file(url: str) -> BinaryIO:
    """A file that can be read and sought in, `_AHEAD` bytes at a time. Opening and reading raise as `read_range`."""
    return io.BufferedReader(_Ranges(url), _AHEAD)


class _Ranges(io.RawIOBase):
    """A file whose every read is one range of bytes, so that a lost connection costs one range."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self._position = url, 0
        self._size = _repeat(lambda: _call("info", url), url)["size"]
        if self._size is None:
            raise ValueError(f"{url}: the server does not report its size; copy the shards to a local folder")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        length = max(0, min(len(buffer), self._size - self._position))
        buffer[:length] = read_range(self.url, self._position, length)
        self._position += length
        return length


def _repeat(work: Callable[[], Result], url: str) -> Result:
    for attempt in range(ATTEMPTS):
        try:
            return work()
        except ValueError:
            raise
        except FileNotFoundError:
            raise ValueError(f"{url}: missing; restore it or correct the address") from None
        except Exception as error:  # every protocol has exceptions of its own
            failure = f"{type(error).__name__}: {one_line(error, 200)}"
            log.debug("%s: attempt %d failed: %s", url, attempt + 1, failure)
        if attempt + 1 < ATTEMPTS:
            time.sleep(PAUSE * 2**attempt)
    raise ValueError(
        f"{url}: cannot be read after {ATTEMPTS} attempts ({failure}); check the connection and run the command again"
    )


def _call(method: str, url: str, *args: Any, **kwargs: Any) -> Any:
    """A method of the file system that belongs to a URL; each process and thread has file systems of its own."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # such as "Install s3fs to access S3"
        raise ValueError(f"{url}: {one_line(error)}") from None
    return getattr(system, method)(path, *args, **kwargs)


def _listing(url: str) -> dict[str, dict[str, Any]]:
    """What the storage reports on each file of a folder, by name; empty if it cannot list folders."""
    entries = _repeat(lambda: _list(url), url)
    return {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}


def _list(url: str) -> list[dict[str, Any]]:
    try:
        return _call("ls", f"{url}/" if url.startswith("http") else url, detail=True)
    except FileNotFoundError:
        return []
    except Exception as error:
        if getattr(error, "status", None) in (401, 403, 405, 501):  # a web server that shows no folders
            return []
        raise


def _version(info: dict[str, Any]) -> str:
    return str(next((info[name] for name in _VERSIONS if info.get(name)), ""))
