"""Two gloo processes train together, and something happens to one of them: both end at once, alike, with the reason."""

import contextlib
import io
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback

import regionedit.data.datamodule
from regionedit import losses
from regionedit.command_line import load_config, run_command
from regionedit.config import TrainConfig
from regionedit.data.loader import TrainLoader
from regionedit.training import train
from tests.conftest import tiny_arguments

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


@pytest.fixture(scope="module")
def ended(tmp_path_factory, pairs, tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir):
    folder = tmp_path_factory.mktemp("two")
    given = tiny_arguments.__wrapped__(folder, pairs, tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir)
    given += ["--max_steps=100000", "--trainer.devices=2", "--trainer.strategy=ddp", "--log.every_steps=1000"]
    return every_mishap(load_config(TrainConfig, overrides=given)), folder


def test_a_signal_to_one_rank_stops_all_with_its_exit_code(ended):
    first, second = ended[0]["one_signal"]
    assert first[0] == second[0] == 128 + signal.SIGUSR1
    assert (ended[1] / "run" / "one_signal" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("mishap", "code", "reason"),
    [
        ("poison", 1, "not finite for samples"),
        ("torn_shard", 2, "data.max_bad_fraction"),
        ("out_of_memory", 1, "CUDA out of memory"),
    ],
)
def test_the_failure_of_one_rank_ends_all_within_seconds(ended, mishap, code, reason):
    first, second = ended[0][mishap]
    assert first[0] == second[0] == code
    assert first[1] < 20 and second[1] < 20
    errors = [line for line in (first[2] + second[2]).splitlines() if "error:" in line]
    assert len(errors) == 2 and all(reason in line for line in errors), (first[2], second[2])
    assert "rank 1" in errors[0]


def test_the_message_names_the_poisoned_sample_on_both_ranks(ended):
    first, second = ended[0]["poison"]
    key = next(line for line in second[2].splitlines() if line.startswith("poisoned")).split()[1]
    assert f"samples {key};" in first[2] and f"samples {key};" in second[2]
