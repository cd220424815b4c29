"""benchmarks/results.json and RESULTS.md: every benchmark's latest figure beside the baseline of the same run."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from regionedit.files import write_atomic

RESULTS = Path(__file__).with_name("results.json")


def record(name: str, ours: float, baseline: float, unit: str, machine: str | None = None) -> float:
    """Print one result and put it in the place of the same benchmark's last one; returns ours / baseline.

    Args:
        machine: None describes this one; a count that no machine influences says so.
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
    """All results as a page, a row each."""
    lines = [
        "# What the benchmarks said",
        "",
        "Written by `make bench` and by each benchmark; what is compared stands at the top of its file. Ratio: ours to",
        "the baseline of the same run.",
        "",
        "| | ours | baseline | unit | ratio | machine |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in sorted(results.items()):
        numbers = [f"{found[field]:.4g}" for field in ("ours", "baseline")]
        lines.append(
            f"| {name} | {' | '.join(numbers)} | {found['unit']} | {found['ratio']:.3g} | {found['machine']} |"
        )
    return "\n".join(lines) + "\n"
