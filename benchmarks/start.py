"""Start-up time: CPU seconds from the command to the first result, compared with importing its libraries.

    python -m benchmarks.start

`start`: CPU seconds of infer.py for one microworld picture, from the command to result.png. Baseline:
`python -c "import torch, diffusers, transformers, open_clip"`. Medians of five alternating runs.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile

from benchmarks.harness import medians, seconds
from benchmarks.results import record

EDIT = (
    "infer.py", "--config", "configs/edit_microworld.yaml", "--image", "docs/examples/circle.png",
    "--instruction", "make the circle blue", "--out",
)  # fmt: skip
IMPORTS = ("-c", "import torch, diffusers, transformers, open_clip")
RUNS = 5


def children_seconds() -> float:
    """CPU seconds of all finished child processes, in user and kernel mode."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_seconds(*arguments: str) -> float:
    """CPU seconds of a Python process."""
    command = [sys.executable, *arguments]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True), children_seconds)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = medians(lambda: cpu_seconds(*EDIT, folder), lambda: cpu_seconds(*IMPORTS), rounds=RUNS)
    record("start", *figures, "CPU s to one result, beside the imports")


if __name__ == "__main__":
    main()
