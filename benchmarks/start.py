"""Start-up time: CPU seconds from the command to the first result, compared with importing its libraries.

    python -m benchmarks.start

`start`: CPU seconds of infer.py for one microworld picture, from the command to result.png. Baseline:
`python -c "import torch, diffusers, transformers, open_clip"`. Medians of five alternating runs.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile

from benchmarks.results import record

EDIT = (
    "infer.py", "--config", "configs/edit_microworld.yaml", "--image", "docs/examples/circle.png",
    "--instruction", "make the circle blue", "--out",
)  # fmt: skip
IMPORTS = ("-c", "import torch, diffusers, transformers, open_clip")
RUNS = 5


def cpu_seconds(*arguments: str) -> float:
    """CPU seconds of a Python process, in user and kernel mode."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    edits, imports = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            edits.append(cpu_seconds(*EDIT, folder))
            imports.append(cpu_seconds(*IMPORTS))
    record("start", statistics.median(edits), statistics.median(imports), "CPU s to one result, beside the imports")


if __name__ == "__main__":
    main()
