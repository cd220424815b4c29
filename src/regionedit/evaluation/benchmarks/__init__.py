"""The benchmarks, one file each; to add one, write it and add a line here."""

from __future__ import annotations

from regionedit.evaluation.benchmarks.base import Benchmark
from regionedit.evaluation.benchmarks.microworld import Microworld

BENCHMARKS: dict[str, type[Benchmark]] = {
    "microworld": Microworld,
}
