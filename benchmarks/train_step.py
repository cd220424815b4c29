"""Pictures per second of training steps, with the share of each stage, compared with the paper taken literally.

    python -m benchmarks.train_step [--rounds 5]        the microworld's shipped models on this machine's CPU
    python -m benchmarks.train_step --full_size true    full size, random weights, on a GPU
    torchrun --nproc_per_node 8 -m benchmarks.train_step --full_size true    the same with DDP

Literal means: the soft region conditions the generator, the gradient passes through every denoising step and the KL
decoder, and nothing is cached, without memory settings and without torch.compile. Weights have the same precision, and
sampling has the same number of steps, as in ours.

Microworld, `train_step_composite`: new proposals at each step, blended in pixels, with cached latents and captions;
`train_step_compiled`: the same with U-Net and decoder compiled (target: at least 3 times); `train_step_stored`: stored
proposals and cached captions (at least 12 times). The time for caching, storing and compiling is not included: each
system's first step is left out, and its seconds are printed. Figures are medians over rounds in which all take turns.

Full size, `train_step_{preset}_full_size`: each preset, with `--batch` pictures on every process, then
`full_size_step.literal` of exact512 with as many pictures as fit, halved from `--baseline_batch` on. Every row is a run
of `train()` on shards that the benchmark writes: Trainer, loader, precision, torch.compile, exchange and DDP are those
of training. After two steps that compile, steps are timed for 15 s. `--out` gets a table: pictures a second, peak
memory, counted operations (benchmarks.step_cost) as a share of the GPU's peak (target: 40 % for paper256), the share of
time in which the first process waits for its loader, how often a step waits for the GPU, and the share of each stage.
It is written after every row. No row begins after `--seconds`, and none takes longer than `--row_seconds`; the table
names the rows that failed or did not run.
"""

from __future__ import annotations

import signal
from pathlib import Path

from benchmarks.full_size_run import ROWS, run
from benchmarks.harness import options


def _stop(number: int, frame) -> None:
    """Ends the program so that it also ends the process that measures, and deletes what that has written."""
    raise SystemExit(128 + number)


def main() -> None:
    parser = options(
        __doc__,
        rounds=(5, 1, "rounds of the microworld"),
        batch=(32, 1, "pictures of every process in a step, at full size"),
        baseline_batch=(8, 1, "the same for the baseline"),
        seconds=(530, 1, "seconds for the whole table"),
        row_seconds=(180, 1, "seconds for a row"),
    )
    parser.add_argument("--full_size", choices=("true", "false"), default="false")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="rows of --full_size true; all")
    parser.add_argument("--out", type=Path, default=Path("outputs/train_step.md"), help="table of --full_size true")
    given = parser.parse_args()
    if given.full_size == "true":
        signal.signal(signal.SIGTERM, _stop)
        run(given.batch, given.baseline_batch, given.seconds, given.row_seconds, given.out, given.rows)
    else:
        from benchmarks.microworld_step import compare  # imports torch, which a full-size run does not need here

        compare(given.rounds)


if __name__ == "__main__":
    main()
