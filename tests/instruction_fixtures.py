"""Crawls for tests of what writes instructions: shards without sidecars, and what a run left in them."""

import json
from collections.abc import Sequence
from pathlib import Path

from write_config import EndpointConfig, WriteConfig

from tests import crawls
from tests.shards import picture

CAPTIONS = ("a brown dog asleep on a grey sofa", "two boats and a lighthouse at sunset", "a red bicycle by a wall")


def write_crawl(folder: Path, shards: Sequence[Sequence[bytes | str]]) -> Path:
    """Shards of captions: keys are as img2dataset's, five digits of the shard and four of the place."""
    samples = [{} for _ in shards]
    for number, captions in enumerate(shards):
        for place, caption in enumerate(captions):
            text = caption if isinstance(caption, bytes) else caption.encode()
            samples[number][f"{number:05d}{place:04d}"] = {"png": picture(1), "txt": text}
    return crawls.write_crawl(folder, samples)


def crawl(folder: Path, shards: int = 3, samples: int = 5) -> Path:
    """The same captions again and again, each with its number."""
    numbered = (f"{CAPTIONS[n % len(CAPTIONS)]}, number {n}" for n in range(shards * samples))
    return write_crawl(folder, [[next(numbered) for _ in range(samples)] for _ in range(shards)])


def config(folder: Path, **changes) -> WriteConfig:
    """The stand-in's configuration for a folder; endpoints wait for nothing."""
    quick = EndpointConfig(timeout=5.0, retries=2, backoff=0.001, longest_wait=0.2)
    return WriteConfig(**{"data": str(folder), "writer": "stand_in", "endpoint": quick} | changes)


def sidecar(folder: Path, shard: int = 0) -> tuple[dict, dict[str, dict]]:
    """Header, and key -> line."""
    header, *lines = map(json.loads, (folder / f"{shard:05d}.instructions.jsonl").read_text().splitlines())
    return header, {line["key"]: line for line in lines}


def sidecars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.instructions.jsonl"))}
