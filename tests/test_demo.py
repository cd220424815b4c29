"""The demo chooses its size from the time that one proposal takes; no time limit stops its training."""

import json
import sys
from dataclasses import asdict

import demo as experiment
import pytest

from regionedit.command_line import load_config
from regionedit.config import EvaluateConfig, TrainConfig


@pytest.fixture
def demo(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "OUT", tmp_path)
    return experiment


def test_a_slower_machine_gets_a_smaller_demo_and_the_report_says_so(demo):
    plans = [demo.plan_for(seconds, 2, 8) for seconds in (0.001, demo.USUAL, 0.1, 0.2, 5)]
    sizes = list(demo.SIZES)
    places = [sizes.index(plan.size) for plan in plans]
    assert places == sorted(places) and (places[0], places[-1]) == (0, len(sizes) - 1)
    assert all(sum(plan.seconds) <= 480 for plan in plans[:-1])
    assert [("this machine is slow" in plan.note) for plan in plans] == [place > 0 for place in places]


def test_more_cores_are_used_and_save_time(demo):
    two, sixteen = (demo.plan_for(demo.USUAL, cores, 60) for cores in (2, 16))
    assert (two.parts, sixteen.parts) == (2, 8) and sum(sixteen.seconds) < sum(two.seconds)


def test_a_resumed_run_keeps_its_size(demo, monkeypatch):
    monkeypatch.setattr(demo, "proposal_seconds", lambda: 0.1)
    first = demo.read_plan(60)
    monkeypatch.setattr(demo, "proposal_seconds", lambda: 9.0)
    assert demo.read_plan(1) == first
    assert json.loads((demo.OUT / "plan.json").read_text()) == asdict(first)


@pytest.mark.parametrize("size", ["whole", "most", "half", "quarter"])
def test_every_command_can_be_parsed_and_no_clock_stops_training(demo, size):
    stages = demo.stages(demo.Plan(size, 3, 1.0))
    (_, packs, _), (_, searches, _), (_, proposals, _), (_, [train], _), (_, [evaluate], _) = stages
    assert len(packs) == len(searches) == len(proposals) == 3
    shards = load_config(TrainConfig, overrides=searches[0][1:-4]).data.train
    assert shards.endswith("{00000..00001}.tar")
    assert packs[0][-2:] == ["--shard_size", str(demo.SIZES[size].searched // 2)]
    config = load_config(TrainConfig, overrides=train[1:])
    assert (config.max_seconds, config.max_steps) == (0, demo.SIZES[size].steps)
    config = load_config(EvaluateConfig, overrides=evaluate[1:])
    assert f"{demo.SIZES[size].samples:,} captioned pictures" in config.note
    assert len(config.systems) == demo.SYSTEMS


def test_commands_run_in_parallel_and_a_failure_stops_the_rest(demo, tmp_path):
    waits = ["-c", "import time; time.sleep(60)"]
    assert demo.run([["-c", "pass"], ["-c", "pass"]], {}) == 0
    assert demo.run([["-c", "raise SystemExit(3)"], waits], {}) == 3


def test_all_stages_run_and_a_failure_is_passed_on(demo, monkeypatch, capsys):
    codes = iter([0, 0, 0, 4])
    monkeypatch.setattr(demo, "run", lambda commands, variables: next(codes))
    monkeypatch.setattr(demo, "proposal_seconds", lambda: demo.USUAL)
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    assert demo.main() == 4
    said = capsys.readouterr()
    assert "[1/5]" in said.out and "[4/5] training" in said.out and "training failed" in said.err
