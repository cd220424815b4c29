"""Lists a tar's members from its headers only, several times faster than tarfile, which reads unusual tars."""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from regionedit.data.remote import open_file

_BLOCK = 512
_ADLER = 65521  # modulus of zlib's running sum
_TIMES = re.compile(rb"(\d+ [amc]time=[\d.]+\n)+")  # the extended header that webdataset writes for every file


def tar_members(path: Path | str) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, number of bytes) of each regular file of an uncompressed tar, in its order.

    Args:
        path: a file, or the URL of one.

    Raises:
        FileNotFoundError: there is none.
        tarfile.TarError: not an uncompressed tar, or truncated.
    """
    position = 0
    with _open(path) as file:  # its buffer often covers the headers after small members, too
        size = file.seek(0, os.SEEK_END)
        while True:
            start = position
            file.seek(position)
            blocks = file.read(3 * _BLOCK)
            if blocks[: 2 * _BLOCK] == bytes(2 * _BLOCK):
                return
            if _holds_only_times(blocks):
                position += 2 * _BLOCK
                blocks = blocks[2 * _BLOCK :]
            member = _plain(blocks)
            if member is None:
                break
            name, length = member
            position += _BLOCK
            after = position - -length // _BLOCK * _BLOCK
            if after > size:
                break
            yield name, position, length
            position = after
    yield from _by_tarfile(path, start)


def _holds_only_times(blocks: bytes) -> bool:
    """Is this an extended header that changes neither name nor length of the member after it?"""
    if blocks[156:157] != b"x":
        return False
    times = _TIMES.match(blocks, _BLOCK)
    return times is not None and not blocks[times.end() : 2 * _BLOCK].strip(b"\0")


def _plain(blocks: bytes) -> tuple[str, int] | None:
    """Name and length from the header of an ordinary file with a short name; None for all else, valid or not."""
    header = blocks[:_BLOCK]
    if len(header) < _BLOCK or header[156] not in b"0\0" or header[257:262] != b"ustar" or header[345]:
        return None
    try:
        length, checksum = int(header[124:136].strip(b" \0"), 8), int(header[148:156].strip(b" \0"), 8)
        name = header[:100].partition(b"\0")[0].decode()
    except ValueError:
        return None
    # a tar's checksum is the sum of the header's bytes with eight spaces for itself; adler32 begins with 1 + that sum
    summed = zlib.adler32(header[:148] + b" " * 8 + header[156:]) & 0xFFFF
    valid = length >= 0 and summed == (checksum + 1) % _ADLER
    return (name, length) if valid and name and name[-1] != "/" else None  # in old tars such names are folders


def _open(path: Path | str) -> BinaryIO:
    return path.open("rb") if isinstance(path, Path) else open_file(path)


def _by_tarfile(path: Path | str, start: int) -> Iterator[tuple[str, int, int]]:
    """The same with tarfile, from a byte on: long names, links, folders, damage."""
    with _open(path) as file:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg():
                    yield member.name, member.offset_data, member.size
            end = tar.offset
        file.seek(end)
        if file.read(2 * _BLOCK) != bytes(2 * _BLOCK):  # tarfile does not require it
            raise tarfile.ReadError("no end-of-archive mark")
