"""Writes test cases with a click on the object, as a user would give it, to evaluate mask-blended inference.

    python data_prep/microworld/click_cases.py --data data/microworld/test --each 4 --out data/microworld/clicks

The cases come from the packed test benchmark. The folder contains `pictures/`, `masks/` (the true regions, for scoring
only), `targets/` and `cases.jsonl`, in the format of the benchmark `folder`. Only operations on an object that a click
can select are included: recolour, replace and remove.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from regionedit.command_line import errors_in_one_line
from regionedit.evaluation.benchmarks.microworld import Microworld
from regionedit.files import write_atomic
from regionedit.images import png
from regionedit.mask_sources.prompts import deepest

KINDS = ("recolour", "replace", "remove")


def write_cases(data: Path, each: int, out: Path) -> int:
    """Write the first `each` cases of every operation and return their number.

    Raises:
        ValueError: no packed benchmark at `data`.
    """
    counts: Counter[str] = Counter()
    lines = []
    for case in Microworld(data):
        if case.operation not in KINDS or counts[case.operation] == each:
            continue
        counts[case.operation] += 1
        pictures = {"pictures": case.request.image, "masks": case.truth_mask, "targets": case.truth_image}
        for folder, picture in pictures.items():
            write_atomic(out / folder / f"{case.id}.png", png(picture))
        row = {
            "id": case.id,
            "image": f"pictures/{case.id}.png",
            "instruction": case.request.instruction,
            "source_caption": case.request.captions.source,
            "target_caption": case.request.captions.target,
            "click": deepest(np.asarray(case.object_mask) > 0),
            "mask": f"masks/{case.id}.png",
            "target": f"targets/{case.id}.png",
            "operation": case.operation,
        }
        lines.append(json.dumps(row) + "\n")
    write_atomic(out / "cases.jsonl", "".join(lines).encode())
    return len(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/microworld/test"), help="the packed test benchmark")
    parser.add_argument("--each", type=int, default=4, help="cases of every operation")
    parser.add_argument("--out", type=Path, default=Path("data/microworld/clicks"), help="folder to write")
    args = parser.parse_args(argv)
    with errors_in_one_line("click_cases.py"):
        print(f"{args.out / 'cases.jsonl'}: {write_cases(args.data, args.each, args.out)} cases")


if __name__ == "__main__":
    main()
