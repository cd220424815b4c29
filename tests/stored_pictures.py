"""Picture files of every mode, depth and format that can be stored, with random pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.picture_files import encode
from regionedit.picture_metadata import Metadata

WIDTH, HEIGHT = 23, 17

MODES_OF = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "L tRNS", "P tRNS", "RGB tRNS", "L16", "LA16", "RGB16", "RGBA16",
            "L16 tRNS", "L12", "RGB12"),
    "webp": ("RGB", "RGBA"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "L16", "L12", "I", "big-endian L16"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("P", "P tRNS"),
    "tga": ("L", "LA", "RGB", "RGBA"),
}  # fmt: skip
"""Suffix -> modes of lossless files."""

KINDS = [(suffix, mode) for suffix, modes in MODES_OF.items() for mode in modes]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def values(channels: int, top: int, seed: int) -> np.ndarray:
    """Random values up to and including `top`, [H, W, C], with alpha of every strength, 0 among them."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, top + 1, (HEIGHT, WIDTH, channels))
    made[0, 0] = top
    if channels % 2 == 0:
        made[..., -1] = rng.choice([0, top // 3, top], (HEIGHT, WIDTH))
    return made


def store(folder: Path, suffix: str, mode: str, seed: int = 0) -> tuple[Path, np.ndarray]:
    """Write a picture; returns its file and what a result has to keep, [H, W, C] in C channels of the file's depth."""
    path = folder / f"{mode.replace(' ', '_')}.{suffix}"
    base, _, extra = mode.removeprefix("big-endian ").partition(" ")
    kind = base.removesuffix("16").removesuffix("12")
    if base[-2:] in ("16", "12") or mode == "I":
        channels = {"L": 1, "I": 1, "LA": 2, "RGB": 3, "RGBA": 4}[kind]
        made = values(channels, 4095 if base.endswith("12") else 65535, seed).astype(np.uint16)
        if suffix == "png":
            path.write_bytes(encode(made, Metadata()))
            if extra:
                return _with_clear_grey(path, made)
        elif mode == "I":
            Image.fromarray(made[..., 0].astype(np.int32)).save(path)
        elif mode.startswith("big"):
            Image.frombytes("I;16B", (WIDTH, HEIGHT), made.astype(">u2").tobytes()).save(path)
        else:
            Image.fromarray(made[..., 0]).save(path)
        return path, made
    made = values({"1": 1, "L": 1, "P": 3, "LA": 2, "RGB": 3, "RGBA": 4}[kind], 255, seed).astype(np.uint8)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    if kind == "1":
        made = np.where(made > 127, 255, 0).astype(np.uint8)
        Image.fromarray(made[..., 0]).convert("1").save(path)
        return path, made
    if kind == "P":
        picture = Image.fromarray(made).quantize(32, dither=Image.Dither.NONE)
        kept = np.asarray(picture.convert("RGB"))
        if extra:
            clear = int(np.asarray(picture)[3, 3])
            options["transparency"] = clear
            kept = np.dstack([kept, np.where(np.asarray(picture) == clear, 0, 255).astype(np.uint8)])
        picture.save(path, **options)
        return path, kept
    bands = [Image.fromarray(np.ascontiguousarray(made[..., c])) for c in range(made.shape[2])]
    if extra:
        clear = made[3, 3].tolist()
        options["transparency"] = tuple(clear) if len(clear) > 1 else clear[0]
        alpha = np.where((made == made[3, 3]).all(-1), 0, 255).astype(np.uint8)
        Image.merge(kind, bands).save(path, **options)
        return path, np.dstack([made, alpha])
    Image.merge(kind, bands).save(path, **options)
    return path, made


def _with_clear_grey(path: Path, made: np.ndarray) -> tuple[Path, np.ndarray]:
    Image.fromarray(made[..., 0]).save(path, transparency=int(made[3, 3, 0]))
    return path, np.dstack([made, np.where(made == made[3, 3], 0, 65535).astype(np.uint16)])
