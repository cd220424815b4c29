"""Write an instruction and a target caption for each caption of a crawl, beside its shards, by any number of workers.

    vllm serve Qwen/Qwen2.5-7B-Instruct        # or any other OpenAI-compatible server
    python data_prep/write_instructions.py --data data/crawl --model Qwen/Qwen2.5-7B-Instruct
    python data_prep/write_instructions.py --data data/crawl --source instructions --endpoint.url https://ADDRESS/v1

`data` holds shards as img2dataset writes them. Every `{shard}.tar` gets a `{shard}.instructions.jsonl`: a header that
records the writer and its settings, then a line for every key. If two attempts fail for a sample, its line gives the
reason, and training skips the sample. Run the command again to continue. Start it several times, on several machines or
as a SLURM array, and the workers share the shards. `--engine ray` does the same as a Ray Data job.
"""

from __future__ import annotations

import signal
import sys

from instruction_run import run
from write_config import WriteConfig

from regionedit.command_line import errors_in_one_line, parse_command


def main() -> int:
    config = parse_command(WriteConfig)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by schedulers: release the claims
    with errors_in_one_line("write_instructions.py"):
        summary = run(config)
    print(summary)
    if summary.bad_fraction > config.max_bad_fraction:
        print(
            f"write_instructions.py: max_bad_fraction: {summary.bad_fraction:.1%} are bad, more than "
            f"{config.max_bad_fraction:.1%}; repair the shards, try another prompt or model, or raise the limit",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
