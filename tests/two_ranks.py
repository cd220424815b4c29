"""Two ranks that train together, once for each mishap of rank 1. They are forked, so that they import nothing again."""

import contextlib
import io
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import replace

import torch
from lightning.pytorch import Callback

import regionedit.data.datamodule
from regionedit import losses
from regionedit.command_line import run_command
from regionedit.config import TrainConfig
from regionedit.data.loader import TrainLoader
from regionedit.training import train

STEP = 2  # the mishap happens in the step that follows this many


class Mishap(Callback):
    """Calls a function on rank 1 when the step begins, and notes the time on both."""

    def __init__(self, work):
        self.work, self.since = work, None

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.global_step == STEP:
            self.since = time.monotonic()
            if trainer.global_rank:
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
            if self._rank and self.position == STEP + 1:
                self.bad.limit = 0
                self.bad.add([("00001", "truncated picture")])
            yield batch


def every_mishap(config: TrainConfig) -> dict[str, list[tuple[int, float, str]]]:
    """{mishap: [rank 0, rank 1]}, each (exit code, seconds since the mishap, what it printed)."""
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, port, config, found), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    try:
        both = dict(found.get(timeout=120) for _ in ranks)
    finally:
        for rank in ranks:
            rank.kill()
    return {mishap: [both[0][mishap], both[1][mishap]] for mishap in both[0]}


def _rank(rank: int, port: int, config: TrainConfig, found) -> None:
    results = {}
    for work in (one_signal, poison, torn_shard, out_of_memory):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
        os.environ["LOCAL_RANK"] = str(rank)
        terms = dict(losses.TERMS)
        results[work.__name__] = _run(replace(config, out=f"{config.out}/{work.__name__}"), work)
        losses.TERMS.update(terms)
    found.put((rank, results))


def _run(config: TrainConfig, work) -> tuple[int, float, str]:
    regionedit.data.datamodule.TrainLoader = TornShards if work is torn_shard else TrainLoader
    mishap = Mishap(work)
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        code = run_command("train.py", lambda: train(config, [mishap]) and 0, config.out, False)
    return code, time.monotonic() - (mishap.since or time.monotonic()), printed.getvalue()
