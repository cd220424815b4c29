"""benchmarks/results.json: every benchmark's latest figure beside the baseline measured in the same run."""

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
    return ratio
