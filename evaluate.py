"""python evaluate.py --config configs/evaluate_microworld.yaml --out outputs/eval: edit a benchmark and score the
edits."""

from __future__ import annotations

import sys
import warnings

from regionedit.command_line import parse_command
from regionedit.config import EvaluateConfig


def main() -> int:
    """Exit code 0: scored. 1: every case failed. 2: the configuration is wrong, and one line says where."""
    config = parse_command(EvaluateConfig)
    from regionedit.evaluation.run import (
        evaluate,
    )  # after parsing, so that a mistyped option is reported without loading torch

    warnings.formatwarning = lambda message, *_: f"evaluate.py: warning: {message}\n"
    try:
        summary = evaluate(config)
    except (ValueError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2
    return int(summary["failed"] == summary["n"])


if __name__ == "__main__":
    raise SystemExit(main())
