"""Train a region predictor from captioned pictures: `python train.py --config configs/train_microworld.yaml`.

Run the same command again to continue after Ctrl-C, SIGTERM or a crash.
"""

import os
import sys

from regionedit.command_line import parse_command, run_command
from regionedit.config import TrainConfig
from regionedit.error_log import log_to


def main() -> int:
    config = parse_command(TrainConfig)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars would hide the lines that matter
    return run_command("train.py", lambda: run(config), config.out, config.debug)


def run(config: TrainConfig) -> None:
    from lightning.pytorch.utilities import rank_zero_only  # late: a mistyped option is reported without loading torch

    from regionedit.training import Stopped, train

    log_to(config.out)
    say = rank_zero_only(print)
    try:
        say(f"wrote {train(config)}")
    except Stopped:
        say(f"train.py: stopped and saved in {config.out}; run the same command to continue", file=sys.stderr)
        raise


if __name__ == "__main__":
    raise SystemExit(main())
