"""Train a region predictor from captioned pictures: `python train.py --config configs/train_microworld.yaml`.

Run the same command again to continue after Ctrl-C, SIGTERM or a crash.
"""

import os
import sys

from regionedit.command_line import parse_command
from regionedit.config import TrainConfig


def main() -> None:
    config = parse_command(TrainConfig)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars would hide the lines that matter
    from regionedit.training import NotFinite, Stopped, train

    try:
        print(f"wrote {train(config)}")
    except ValueError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (NotFinite, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except Stopped:
        print(f"train.py: stopped and saved in {config.out}; run the same command to continue", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
