"""Read the captions and given instructions of a crawl's shards, with what is wrong with them; decodes no picture."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from write_config import WriteConfig

from regionedit.data.index import PICTURES, index_tar

_LARGEST = 2**20  # largest caption or json that is read, in bytes
_LONGEST_INSTRUCTION = 300

Place = tuple[int, int]  # first byte, number of bytes


@dataclass(frozen=True)
class CaptionedSample:
    """One key of a shard.

    Args:
        caption: what the picture shows, in one printable line; None if the describer has to caption the picture.
        instruction: the given instruction in one printable line, or None.
        picture: where the picture is in the tar.
        problem: why no instruction can be written for it, or empty.
    """

    key: str
    caption: str | None = None
    instruction: str | None = None
    picture: Place | None = None
    problem: str = ""


@dataclass(frozen=True)
class ShardCaptions:
    """All keys of a shard in its order, and a hash of everything that was read, independent of times and paths."""

    samples: tuple[CaptionedSample, ...]
    digest: str


class _Problem(Exception):
    """Why a sample's text cannot be used."""


def read_captions(tar: Path, config: WriteConfig) -> ShardCaptions:
    """Read one shard's texts.

    Raises:
        ValueError: a damaged tar, a repeated key, or a name that is not UTF-8; one line that begins with the path.
    """
    digest, samples, wanted = hashlib.sha256(), [], _members(config)
    members = index_tar(tar)
    with tar.open("rb") as file:
        for key, found in members.items():
            if re.search("[\ud800-\udfff]", key):  # how Python stores bytes that are not UTF-8
                raise ValueError(f"{tar}: the name of {key!r} is not UTF-8; pack the shard again")
            texts = {name: _read(file, found[name]) for name in wanted if name in found}
            pictures = [found[suffix] for suffix in found if suffix in PICTURES]
            digest.update(repr((key, pictures, [(name, found[name][1]) for name in texts])).encode())
            for text in texts.values():
                digest.update(text or b"")
            samples.append(_sample(key, pictures, texts, config))
    return ShardCaptions(tuple(samples), digest.hexdigest())


def _members(config: WriteConfig) -> list[str]:
    """Suffixes of the tar members that the configuration needs."""
    columns = {
        "captions": ("txt",),
        "pictures": (),
        "instructions": (config.instruction_column, config.caption_column),
    }[config.source]
    return sorted({"txt" if column == "txt" else "json" for column in columns if column is not None})


def _sample(key: str, pictures: list[Place], texts: Mapping[str, bytes | None], config: WriteConfig) -> CaptionedSample:
    if len(pictures) != 1:
        return CaptionedSample(key, problem="unpaired: no picture" if not pictures else "unpaired: two pictures")
    caption = instruction = None
    try:
        if config.source == "captions":
            caption = _line(texts, "txt", "caption", config.longest_caption)
        elif config.source == "instructions":
            instruction = _line(texts, config.instruction_column, "instruction", _LONGEST_INSTRUCTION)
            if config.caption_column is not None:
                caption = _line(texts, config.caption_column, "caption", config.longest_caption)
    except _Problem as problem:
        return CaptionedSample(key, problem=str(problem))
    return CaptionedSample(key, caption, instruction, pictures[0])


def _read(file: BinaryIO, place: Place) -> bytes | None:
    """A member's bytes, or None if it is too large to be a text."""
    offset, length = place
    return os.pread(file.fileno(), length, offset) if length <= _LARGEST else None


def _line(texts: Mapping[str, bytes | None], column: str, what: str, longest: int) -> str:
    """A text as one printable line, words separated by single spaces."""
    member = "txt" if column == "txt" else "json"
    if member not in texts:
        raise _Problem(f"unpaired: no {what} (.{member})")
    data = texts[member]
    if data is None:
        raise _Problem(f"{what}: too long")
    try:
        text = data.decode()
        if member == "json":
            text = json.loads(text)[column]
    except UnicodeDecodeError:
        raise _Problem(f"{what}: not UTF-8") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Problem(f"{what}: no {column} in the json") from None
    if not isinstance(text, str):
        raise _Problem(f"{what}: no text in the json's {column}")
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(text.split())
    if not line:
        raise _Problem(f"{what}: empty")
    if len(line) > longest:
        raise _Problem(f"{what}: too long")
    return line
