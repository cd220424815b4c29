"""Two gloo processes train together, and something happens to one of them: both end at once, alike, with the reason."""

import signal

import pytest

from regionedit.command_line import load_config
from regionedit.config import TrainConfig
from tests.conftest import tiny_arguments
from tests.two_ranks import every_mishap


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
