"""Perceptual hashes of the benchmarks' pictures; filter.py uses them to keep test pictures out of the training set."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measurements import open_sound
from perceptual_hash import grey, perceptual_hashes
from PIL import Image

from regionedit.images import SUFFIXES


def benchmark_hashes(name: str, folder: Path) -> np.ndarray:
    """Hashes of a benchmark's pictures, uint64; flat pictures have no hash and are left out.

    Args:
        name: a key of evaluate.py's BENCHMARKS, to hash the benchmark's source pictures and true results; any other
            name, to hash all picture files in the folder and its subfolders.

    Raises:
        ValueError: the folder holds no picture, or not that benchmark; names the rule.
    """
    from regionedit.evaluation.benchmarks import BENCHMARKS

    try:
        pictures = _of_benchmark(BENCHMARKS[name], folder) if name in BENCHMARKS else _of_folder(folder)
        found = [grey(picture) for picture in pictures]
    except ValueError as error:
        raise ValueError(f"decontaminate.{name}: {str(error).removeprefix('data: ')}") from None
    if not found:
        raise ValueError(f"decontaminate.{name}: {folder} holds no picture; correct the path or leave the rule out")
    hashes, detailed = perceptual_hashes(np.stack(found))
    return hashes[detailed]


def _of_benchmark(kind: type, folder: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they warn that scores are not comparable; only the pictures are used here
        for case in kind(folder):
            yield case.request.image
            if case.truth_image is not None:
                yield case.truth_image


def _of_folder(folder: Path) -> Iterator[Image.Image]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        try:
            yield open_sound(path.read_bytes())[1]
        except ValueError as error:
            raise ValueError(f"{path} cannot be read ({error}); repair or remove it") from None
