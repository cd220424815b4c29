"""Two gloo processes train together, and something happens to one of them: both end at once, alike, with the reason."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from regionedit.command_line import save_config


@pytest.fixture(scope="module")
def ended(tmp_path_factory, pairs, tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir):
    """{mishap: [what rank 0 did, what rank 1 did]}, each (exit code, seconds since the mishap, what it printed)."""
    from tests.conftest import tiny_train

    folder = tmp_path_factory.mktemp("two")
    make = tiny_train.__wrapped__(folder, pairs, tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir)
    config = make("--max_steps=100000", "--trainer.devices=2", "--trainer.strategy=ddp", "--log.every_steps=1000")
    save_config(config, folder / "given.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.two_ranks", str(rank), port, str(folder / "given.yaml"), str(folder / "ended")],
            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in started:
            _, errors = process.communicate(timeout=250)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
    found = [json.loads((folder / f"ended.{rank}.json").read_text()) for rank in range(2)]
    return {mishap: [of_rank[mishap] for of_rank in found] for mishap in found[0]}, folder


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
