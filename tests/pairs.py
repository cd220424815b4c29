"""Small folders of captioned pictures to train on: noise, with words of the tiny vocabulary."""

from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.images import png
from tests.shards import truth_members, write_instructions, write_tar
from tests.tiny_tokenizers import WORDS

SIZE = 32


def write_pairs(folder: Path, shards: int = 2, samples: int = 6, truth: bool = False, proposals: bool = False) -> Path:
    """Noise pictures with words of the tiny vocabulary."""
    rng = np.random.default_rng(0)
    for shard in range(shards):
        members, entries, truths, stored = [], [], [], []
        for number in range(samples):
            key = f"{shard:02d}{number:04d}"
            picture = Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
            words = rng.choice(WORDS, 9)
            members.append((key, {"png": png(picture), "txt": " ".join(words[:3]).encode(), "json": b"{}"}))
            entries.append(
                {"key": key, "instruction": " ".join(words[3:6]), "target_caption": " ".join(words[6:])}
                | ({"operation": ("replace", "background")[number % 2]} if truth else {})
            )
            truths.append((key, truth_members(SIZE)))
            other = Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
            stored.append((key, {"png": png(other), "mask.png": truth_members(SIZE)["mask.png"]}))
        folder.mkdir(parents=True, exist_ok=True)
        write_tar(folder / f"{shard:05d}.tar", members)
        write_instructions(folder / f"{shard:05d}.instructions.jsonl", entries)
        if truth:
            write_tar(folder / f"{shard:05d}.truth.tar", truths)
        if proposals:
            (folder / "proposals").mkdir(exist_ok=True)
            write_tar(folder / "proposals" / f"{shard:05d}.proposals.tar", stored)
    return folder
