"""python evaluate.py --config configs/evaluate_microworld.yaml --out outputs/eval: edit a benchmark and score the
edits. With --suite paper --out outputs/paper: several systems on several benchmarks, a table for each."""

from __future__ import annotations

import sys
import warnings

from regionedit.command_line import parse_command, run_command
from regionedit.config import EvaluateConfig
from regionedit.error_log import log_to
from regionedit.files import remove_leftovers


def main() -> int:
    """Exit code 0: scored. 1: every case failed, or an error ended the run. 2: the configuration is wrong; a line says
    where."""
    config = parse_command(EvaluateConfig)
    warnings.formatwarning = lambda message, *_: f"evaluate.py: warning: {message}\n"
    return run_command("evaluate.py", lambda: run(config), config.out, config.debug)


def run(config: EvaluateConfig) -> int:
    # late imports: a mistyped option is reported without loading torch
    if config.suite is not None:
        from regionedit.evaluation.suite import run_suite

        log_to(config.out)
        return run_suite(config, sys.argv[1:])
    from regionedit.evaluation.run import evaluate

    log_to(config.out)
    remove_leftovers(config.out, below=True)
    summary = evaluate(config)
    return int(summary["failed"] == summary["n"])


if __name__ == "__main__":
    raise SystemExit(main())
