"""Start-up time: CPU seconds from the command to the first result, compared with importing its libraries.

    python -m benchmarks.start

`start`: CPU seconds of infer.py for one microworld picture, from the command to result.png. Baseline:
`python -c "import torch, diffusers, transformers, open_clip"`. Medians of five alternating runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.harness import medians, options, record, seconds

EDIT = (
    "infer.py", "--config", "configs/edit_microworld.yaml", "--image", "docs/examples/circle.png",
    "--instruction", "make the circle blue", "--out",
)  # fmt: skip
IMPORTS = ("-c", "import torch, diffusers, transformers, open_clip")
RUNS = 5


def cpu_seconds(*arguments: str) -> float:
    """CPU seconds of a Python process, in user and kernel mode."""
    command = [sys.executable, *arguments]
    return seconds(
        lambda: subprocess.run(command, check=True, capture_output=True),
        lambda: os.times().children_user + os.times().children_system,
    )


def main() -> None:
    options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = medians(lambda: cpu_seconds(*EDIT, folder), lambda: cpu_seconds(*IMPORTS), rounds=RUNS)
    record("start", *figures, "CPU s to one result, beside the imports")


if __name__ == "__main__":
    main()
