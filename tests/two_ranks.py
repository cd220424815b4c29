"""One of two ranks that train together, once for each mishap: `python -m tests.two_ranks RANK PORT CONFIG RESULTS`.

Appends {mishap: [exit code, seconds since the mishap, what was printed]} to RESULTS.RANK.json.
"""

import contextlib
import io
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import Callback

RANK, PORT = int(sys.argv[1]), sys.argv[2]
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT, "NODE_RANK": "0", "CUDA_VISIBLE_DEVICES": ""}

from regionedit import losses  # noqa: E402
from regionedit.command_line import load_config, run_command  # noqa: E402
from regionedit.config import TrainConfig  # noqa: E402
from regionedit.data.loader import TrainLoader  # noqa: E402
from regionedit.training import train  # noqa: E402

STEP = 2  # the mishap happens in the step that follows this many


class Mishap(Callback):
    """Calls a function on rank 1 when the step begins, and notes the time on both."""

    def __init__(self, work):
        self.work, self.since = work, None

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.global_step == STEP:
            self.since = time.monotonic()
            if RANK:
                self.work(module, batch)


def poison(module, batch):
    """Its second sample's loss becomes NaN."""
    original = losses.TERMS["area"]
    spoilt = torch.tensor([False, True])
    losses.TERMS["area"] = lambda outputs: torch.where(spoilt, torch.nan, original(outputs))
    print("poisoned", batch.keys[1])


def out_of_memory(module, batch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    module.step = fail


def one_signal(module, batch):
    os.kill(os.getpid(), signal.SIGUSR1)


def torn_shard(module, batch):
    pass


class TornShards(TrainLoader):
    """On rank 1, the batch of that step holds a sample that cannot be read, and the limit is passed."""

    def __iter__(self):
        for batch in super().__iter__():
            if RANK and self.position == STEP + 1:
                self.bad.limit = 0
                self.bad.add([("00001", "truncated picture")])
            yield batch


def run(config: TrainConfig, work) -> tuple[int, float, str]:
    os.environ |= {"LOCAL_RANK": str(RANK), "WORLD_SIZE": "2"}
    import regionedit.data.datamodule

    regionedit.data.datamodule.TrainLoader = TornShards if work is torn_shard else TrainLoader
    mishap = Mishap(work)
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        code = run_command("train.py", lambda: train(config, [mishap]) and 0, config.out, False)
    return code, time.monotonic() - (mishap.since or time.monotonic()), printed.getvalue()


if __name__ == "__main__":
    torch.set_num_threads(1)
    config = load_config(TrainConfig, sys.argv[3])
    results = {}
    for work in (one_signal, poison, torn_shard, out_of_memory):
        terms = dict(losses.TERMS)
        results[work.__name__] = run(replace(config, out=f"{config.out}/{work.__name__}"), work)
        losses.TERMS.update(terms)
    Path(f"{sys.argv[4]}.{RANK}.json").write_text(json.dumps(results))
