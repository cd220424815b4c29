"""Writes benchmarks/results.json and RESULTS.md: the latest figure of every benchmark and the baseline of its run."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from regionedit.files import write_atomic

RESULTS = Path(__file__).with_name("results.json")


def record(name: str, ours: float, baseline: float, unit: str, machine: str | None = None) -> float:
    """Print one result and replace the previous one of the same name; returns ours / baseline.

    Args:
        machine: None describes this machine; a count that does not depend on a machine gives a text that says so.
    """
    machine = machine or f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    ratio = ours / baseline
    print(f"{name}: {ours:.4g} against {baseline:.4g} {unit}, ratio {ratio:.4g} ({machine})")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {"ratio": ratio, "ours": ours, "baseline": baseline, "unit": unit, "machine": machine}
    write_atomic(RESULTS, (json.dumps(results, indent=2, sort_keys=True) + "\n").encode())
    write_atomic(RESULTS.with_name("RESULTS.md"), table(results).encode())
    return ratio


def table(results: dict[str, dict]) -> str:
    """All results as a page with one row each."""
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench` and by each benchmark, whose file says at its top what is compared. Ratio: ours to",
        "the baseline of the same run.",
        "",
        "| | ours | baseline | unit | ratio | machine |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in sorted(results.items()):
        numbers = [f"{result[field]:.4g}" for field in ("ours", "baseline")]
        lines.append(
            f"| {name} | {' | '.join(numbers)} | {result['unit']} | {result['ratio']:.3g} | {result['machine']} |"
        )
    return "\n".join(lines) + "\n"
