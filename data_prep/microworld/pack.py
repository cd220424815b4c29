"""Packs the microworld into training and validation shards and benchmark folders.

    python data_prep/microworld/pack.py --split train --samples 100000 --out data/microworld/train --workers 2 --seed 0
    python data_prep/microworld/pack.py --split validation --samples 1000 --out data/microworld/validation
    python data_prep/microworld/pack.py --split test --samples 600 --out data/microworld/test
    python data_prep/microworld/pack.py --split validation --cases --samples 400 --out data/microworld/validation_cases

A sample is a pure function of (split, seed, index), so the files do not depend on workers or on interruptions. After an
interruption, the same command writes what is missing. Training shards contain picture, caption, instruction and target
caption, nothing else; the ground truth of validation shards is in separate files beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

import regionedit.microworld
from regionedit.command_line import errors_in_one_line
from regionedit.files import write_together
from regionedit.images import png
from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import render
from regionedit.microworld.scene import Scene
from regionedit.microworld.splits import sample
from regionedit.microworld.truth import object_map, truth_mask

SHARD_FILES = ("{}.tar", "{}.instructions.jsonl")  # the last that is written, and the one with the header
CASE_FILE = "cases-{}.jsonl"
SPLITS = ("train", "validation", "test")
STUDY_SHARD = 1000  # samples of a training shard in the study
LARGEST_SHARD = 10_000  # img2dataset's keys have four digits for the index within a shard


@dataclass(frozen=True)
class Part:
    """Samples [first, first + samples) of a split, which are written together."""

    out: Path
    split: str
    seed: int
    number: int
    first: int
    samples: int

    @property
    def name(self) -> str:
        return f"{self.number:05d}"

    def header(self) -> dict:
        """Identifies the contents of a file, to check whether an existing file is the one to be written."""
        return {
            "schema": 1,
            "writer": "microworld",
            "world": world(),
            "split": self.split,
            "seed": self.seed,
            "first": self.first,
            "samples": self.samples,
        }

    def edits(self) -> Iterator[tuple[str, Edit]]:
        """(key, edit) pairs; no key occurs twice across splits and shards."""
        for index in range(self.samples):
            yield f"{self.split}-{self.name}{index:04d}", sample(self.split, self.seed, self.first + index)


def study_parts(out: Path, shards: int) -> list[Part]:
    """The first shards of the training split, as the study packs them."""
    return [Part(out, "train", 0, i, i * STUDY_SHARD, STUDY_SHARD) for i in range(shards)]


@cache
def world() -> str:
    """Fingerprint of the code that decides what a sample looks like."""
    folder = Path(regionedit.microworld.__path__[0])
    files = [folder / f"{name}.py" for name in ("edits", "grammar", "renderer", "scene", "splits", "truth")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def write_shard(part: Part) -> None:
    """Write one standard shard with its instructions; for validation also a tar with the ground truth."""
    pairs = list(part.edits())
    write_pairs(part, pairs, render_in_parts([edit.source for _, edit in pairs]))


def write_pairs(part: Part, pairs: list[tuple[str, Edit]], pictures: np.ndarray) -> None:
    """Write the shard of these edits with these pictures, uint8 [samples, H, W, 3]."""
    truth = part.split == "validation"
    lines, members, truths = [part.header()], [], []
    for (key, edit), picture in zip(pairs, pictures, strict=True):
        data = png(Image.fromarray(picture))
        about = {"key": key, "caption": edit.source_caption, "status": "success"}
        about |= dict.fromkeys(("width", "original_width"), picture.shape[1])
        about |= dict.fromkeys(("height", "original_height"), picture.shape[0])
        about["sha256"] = hashlib.sha256(data).hexdigest()
        members.append((key, {"png": data, "txt": edit.source_caption.encode(), "json": json.dumps(about).encode()}))
        line = {"key": key, "instruction": edit.instruction, "target_caption": edit.target_caption}
        lines.append(line | ({"operation": edit.operation} if truth else {}))
        if truth:
            truths.append((key, {"mask.png": _mask(edit), "objects.png": png(Image.fromarray(object_map(edit)))}))
    files = {f"{part.name}.instructions.jsonl": _jsonl(lines)}
    if truth:
        files[f"{part.name}.truth.tar"] = make_tar(truths)
    write_together(part.out, files | {f"{part.name}.tar": make_tar(members)})  # the shard itself comes last


def write_cases(part: Part) -> None:
    """Write a part of the benchmark: three pictures a case, and a temporary file with its lines of cases.jsonl."""
    pairs = list(part.edits())
    sources, targets = (render_in_parts([getattr(edit, side) for _, edit in pairs]) for side in ("source", "target"))
    lines = [part.header()]
    for (key, edit), source, target in zip(pairs, sources, targets, strict=True):
        groups = {
            "seen": "unseen" if edit.unseen_pair else "seen",
            "phrasing": "unseen" if edit.unseen_phrasing else "seen",
            "objects": str(len(edit.source.things)),
        }
        lines.append({"id": key, **edit.to_json(), "groups": groups})
        (part.out / "pictures" / f"{key}.png").write_bytes(png(Image.fromarray(source)))
        (part.out / "truth" / f"{key}.png").write_bytes(png(Image.fromarray(target)))
        (part.out / "masks" / f"{key}.png").write_bytes(_mask(edit))
    write_together(part.out, {CASE_FILE.format(part.name): _jsonl(lines)})


def is_there(part: Part, last: str, first: str) -> bool:
    """Whether a part is complete. Raises ValueError: the file of another packing has its name.

    Args:
        last, first: name of the file that is written last, and of the file that begins with the part's header.
    """
    if not (part.out / last.format(part.name)).exists():
        return False
    _expect(part.out / first.format(part.name), part.header())
    return True


def pack(split: str, samples: int, out: Path, workers: int, seed: int, shard_size: int, cases: bool = False) -> None:
    """Write everything that is missing.

    Args:
        cases: write a benchmark folder instead of shards, as always for the test split.

    Raises:
        ValueError: an argument is out of range, or `out` contains another packing.
        OSError: no space left, or no permission.
    """
    for name, value, low, high in (
        ("samples", samples, 1, 10**9),
        ("workers", workers, 1, 1024),
        ("seed", seed, 0, 2**63),
        ("shard_size", shard_size, 1, LARGEST_SHARD),
    ):
        if not low <= value <= high:
            raise ValueError(f"--{name}: {value} is not in {low}..{high}")
    starts = range(0, samples, shard_size)
    parts = [Part(out, split, seed, i, s, min(shard_size, samples - s)) for i, s in enumerate(starts)]
    if cases or split == "test":
        _pack_benchmark(parts, samples, workers)
        return
    beyond = sorted(path.name for path in out.glob("[0-9]*.tar") if int(path.name.split(".")[0]) >= len(parts))
    if beyond:
        raise ValueError(f"--out: {out} holds {beyond[0]}, which is more than --samples {samples}; remove it first")
    _write(parts, SHARD_FILES, write_shard, workers)


def _pack_benchmark(parts: list[Part], samples: int, workers: int) -> None:
    out, about = parts[0].out, {**replace(parts[0], samples=samples).header()}
    done = out / "packing.json"
    if done.exists():
        _expect(done, about)
        return
    for folder in ("pictures", "truth", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    _write(parts, (CASE_FILE, CASE_FILE), write_cases, workers)
    written = [out / CASE_FILE.format(part.name) for part in parts]
    lines = [line for path in written for line in path.read_bytes().splitlines(keepends=True)[1:]]
    write_together(out, {"cases.jsonl": b"".join(lines), done.name: _jsonl([about])})
    for path in written:
        path.unlink()


def _write(parts: list[Part], files: tuple[str, str], write: Callable[[Part], None], workers: int) -> None:
    missing = [part for part in parts if not is_there(part, *files)]
    for left in parts[0].out.glob(".*.part"):  # from a killed run
        left.unlink()
    pool = ProcessPoolExecutor(workers)
    try:
        running = [pool.submit(write, part) for part in missing]
        for finished in track(as_completed(running), f"packing {parts[0].split}", len(running)):
            finished.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _expect(path: Path, header: dict) -> None:
    try:
        with path.open() as file:
            found = json.loads(file.readline())
    except (OSError, ValueError):
        found = {}
    differs = [name for name, value in header.items() if found.get(name) != value]
    if differs:
        what = ", ".join(f"{name} {found.get(name)}, not {header[name]}" for name in differs)
        raise ValueError(f"--out: {path} is of another packing ({what}); remove it or choose another folder")


def _jsonl(lines: list[dict]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def make_tar(members: list[tuple[str, dict[str, bytes]]]) -> bytes:
    """A tar of `{key}.{suffix}` files; the same contents give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, parts in members:
            for suffix, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")  # time and owner stay zero: bytes depend on content only
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def render_in_parts(scenes: list[Scene]) -> np.ndarray:
    """Render 256 scenes at a time, because the renderer keeps all silhouettes in memory."""
    return np.concatenate([render(scenes[start : start + 256]) for start in range(0, len(scenes), 256)])


def _mask(edit: Edit) -> bytes:
    return png(Image.fromarray((truth_mask(edit) * 255).round().astype(np.uint8)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, required=True, help="one of the disjoint streams of samples")
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder; complete shards in it are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cases", action="store_true", help="write a benchmark folder, as always for test, instead of shards"
    )
    parser.add_argument("--shard_size", type=int, default=1000, help="samples in a shard")
    args = parser.parse_args()
    with errors_in_one_line("pack.py"):
        pack(**vars(args))


if __name__ == "__main__":
    main()
