"""A packed microworld benchmark for tests: the layout that data_prep/microworld/pack.py writes, a few cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from regionedit.microworld.renderer import render
from regionedit.microworld.splits import sample
from regionedit.microworld.truth import truth_mask


def write_benchmark(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """Write `count` cases of the test split."""
    lines = []
    for index in range(count):
        edit = sample("test", seed, index)
        case_id = f"{index:06d}"
        source, target = render([edit.source, edit.target])
        pictures = {"pictures": source, "truth": target, "masks": (truth_mask(edit) * 255).round().astype(np.uint8)}
        for kind, pixels in pictures.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{case_id}.png")
        groups = {"seen": "unseen" if edit.unseen_pair else "seen", "objects": str(len(edit.source.things))}
        lines.append(json.dumps({"id": case_id, **edit.to_json(), "groups": groups}))
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n")
    return folder
