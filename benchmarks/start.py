"""How long a command takes to start: CPU seconds from the command to the first result, beside its libraries' imports.

    python -m benchmarks.start

`start`: seconds that infer.py computes for one microworld picture, from the command to result.png, beside
`python -c "import torch, diffusers, transformers, open_clip"`. Medians of five runs in turn.
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
    """Of a Python process, in user and kernel."""
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
