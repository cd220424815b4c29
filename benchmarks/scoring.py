"""Cases per second of scoring finished pictures, and its memory, with the microworld's tiny metric CLIP and DINO.

    python -m benchmarks.scoring [--cases 3589]

Saved 64 px pictures are read back and scored with L1, L2, CLIP-I, CLIPdir and DINO, source and target pictures as well.
Ours: the metrics get 32 cases at a time; their networks process them as a batch, and results are cached. Baseline: the
same metrics, one case at a time. Target: at least 150 cases/s on two cores.

Memory: the process's peak after all cases, compared with that after a quarter of them; a ratio of 1 means constant
memory. Target: at most 1,536 MiB.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import at_least, options, peak_mebibytes
from benchmarks.results import record
from regionedit.config import EvaluateConfig
from regionedit.evaluation import METRICS
from regionedit.evaluation.backbones import load_backbone
from regionedit.evaluation.editing import chunks
from regionedit.evaluation.outcomes import CaseFolder
from regionedit.evaluation.scoring import TOGETHER
from regionedit.records import Captions, EditCase, EditRequest

SCORED = ("l1", "l2", "clip_image", "clip_direction", "dino")
BASELINE_CASES = 256


def write_pictures(folder: Path, count: int) -> None:
    """For each case, write a source, a target and an edited picture with about the detail of a photograph."""
    rng = np.random.default_rng(0)
    for kind in ("source", "target", "pictures"):
        (folder / kind).mkdir()
    for case in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64))
        for kind in ("source", "target", "pictures"):
            coarse.paste(tuple(rng.integers(0, 256, 3).tolist()), (16, 16, 40, 40))
            coarse.save(folder / kind / f"{case}.png")


def read_cases(folder: Path, count: int) -> Iterator[EditCase]:
    """The cases; each picture is opened when its case is needed."""
    colours = "red blue green orange purple yellow".split()
    for case in map(str, range(count)):
        captions = Captions("a circle", f"a {colours[int(case) % 6]} square and {colours[int(case) // 6 % 6]} ring")
        source = Image.open(folder / "source" / f"{case}.png").convert("RGB")
        request = EditRequest(source, "change the circle", captions=captions, id=case)
        target = Image.open(folder / "target" / f"{case}.png").convert("RGB")
        yield EditCase(case, request, "change", truth_image=target)


def rate(folder: Path, count: int, together: int, when_quarter: Callable[[], None] = lambda: None) -> float:
    """Cases per second, without loading the networks."""
    load_backbone.cache_clear()
    config = EvaluateConfig(device="cpu")
    metrics = [METRICS[name].from_config(config) for name in SCORED]
    outcomes = CaseFolder(folder).outcomes(read_cases(folder, count))
    started = time.perf_counter()
    for done, group in enumerate(chunks(outcomes, together)):
        for metric in metrics:
            metric.update(group)
        if done == count // together // 4:
            when_quarter()
    seconds = time.perf_counter() - started
    assert all(len(metric.values()) == count and metric.compute().isfinite() for metric in metrics)
    return count / seconds


def main() -> None:
    parser = options(__doc__)
    parser.add_argument(
        "--cases",
        type=at_least(BASELINE_CASES),
        default=3589,
        help="number of cases; the default is that of Emu Edit's test set",
    )
    count = parser.parse_args().cases
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pictures(folder, count)
        after_quarter = []
        ours = rate(folder, count, TOGETHER, lambda: after_quarter.append(peak_mebibytes()))
        at_end = peak_mebibytes()
        baseline = rate(folder, BASELINE_CASES, 1)
    record("scoring", ours, baseline, "cases/s")
    record("scoring_memory", at_end, after_quarter[0], "MiB")


if __name__ == "__main__":
    main()
