"""A command that is killed at any moment and run again leaves the files of a run that was never killed, bit for bit."""

import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import pytest
import torch

from regionedit.command_line import save_config
from tests.instruction_fixtures import crawl
from tests.killed_commands import KILLED, Commands
from tests.pairs import write_pairs
from tests.test_infer import photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MOMENTS = 10
"""Runs that are killed; each second one is killed once more when it goes on."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with Commands(tmp_path_factory.mktemp("log") / "printed.txt") as started:
        yield started


def test_infer(commands, config_file, tmp_path):
    lines = []
    for number in range(6):
        path = photo(tmp_path / f"{number}.jpg", 60 - 8 * (number > 3), 44, number)
        lines.append({"image": str(path), "instruction": "red", "target_caption": "a red circle", "id": f"{number}"})
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines.append({"image": str(tmp_path / "broken.png"), "instruction": "red", "id": "broken"})
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["infer.py", "--config", str(config_file), "--requests", str(requests), "--batch", "2"]
    out = tmp_path / "out"
    words += ["--format", "source", "--layers", "true", "--out", str(out)]
    check(commands, words, out, code=1)


def test_evaluate(commands, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    pack = ["data_prep/microworld/pack.py", "--split", "test", "--samples", "6", "--workers", "1", "--out", str(data)]
    assert commands.run(pack, data).code == 0
    words = ["evaluate.py", "--config", "configs/evaluate_microworld.yaml", "--data", str(data)]
    words += ["--generator.num_inference_steps", "1", "--batch", "4", "--systems", "{}", "--device", "cpu",
              "--baselines", "[centre_box, truth]"]  # fmt: skip
    check(commands, [*words, "--out", str(out)], out)


def test_make_proposals(commands, tiny_train, tmp_path):
    out = tmp_path / "out"
    config = tiny_train("--step.proposal_mask=random_hard", "--data.proposal_rounds=2")
    save_config(config, tmp_path / "given.yaml")
    words = ["data_prep/make_proposals.py", "--config", str(tmp_path / "given.yaml"), "--device", "cpu", "--batch", "2"]
    check(commands, [*words, "--data.proposals", str(out)], out)


def test_write_instructions(commands, tmp_path):
    source = crawl(tmp_path / "source", shards=8, samples=5)
    words = ["data_prep/write_instructions.py", "--writer", "stand_in", "--data"]
    check(commands, [*words, str(tmp_path / "out")], tmp_path / "out", begin_with=source)


def test_train(commands, tiny_train, tmp_path):
    validation = write_pairs(tmp_path / "validation", shards=1, truth=True)
    config = tiny_train(
        f"--data.validation={validation}", "--max_steps=6", "--log.checkpoint_every_steps=2",
        "--log.validate_every_steps=2", "--log.pictures_every_steps=2", "--log.export=best",
    )  # fmt: skip
    save_config(config, tmp_path / "given.yaml")
    out = tmp_path / "out"
    check(commands, ["train.py", "--config", str(tmp_path / "given.yaml"), "--out", str(out)], out)


def check(commands: Commands, words: list[str], out: Path, code: int = 0, begin_with: Path | None = None) -> None:
    """Kill the command MOMENTS times, each time in a fresh folder, and compare what it leaves when it is run again.

    Args:
        out: the folder that the command writes.
        code: its exit code.
        begin_with: what the folder holds before.
    """

    def fresh() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if begin_with:
            shutil.copytree(begin_with, out)

    def run(*moment) -> int:
        nonlocal killed
        code = commands.run(words, out, *moment).code
        assert code in (whole.code, KILLED), f"{moments}: {commands.log.read_text()[-2000:]}"
        killed += code == KILLED
        return code

    fresh()
    moments, killed = [], 0
    whole = commands.run(words, out)
    assert whole.code == code, commands.log.read_text()[-2000:]
    expected, dice = contents(out), random.Random(words[0])
    print(f"{words[0]}: {whole.changes} changes in {whole.seconds:.2f} s")
    for number in range(MOMENTS):
        fresh()
        moments = []
        for kill in range(1 + number % 2):  # the second one hits the run that goes on, which has less left to do
            delay = dice.choice((0.0, dice.uniform(0, 2 * whole.seconds / whole.changes)))
            moments.append((dice.randint(1, whole.changes // (1 + kill)), delay))
            run(moments[-1])
        assert run() == code
        found = contents(out)
        differing = sorted(name for name in expected.keys() | found if expected.get(name) != found.get(name))
        assert not differing, f"killed at {moments}: {differing}"
    print(f"{words[0]}: {killed} kills")
    assert killed >= MOMENTS, "most kills came too late"


def contents(folder: Path) -> dict[str, str]:
    """File name -> hash, without what has to differ between two runs.

    log.txt and TensorBoard's files name the time, and each run adds to them. metrics.csv and the checkpoints of a
    training also hold its speed and its duration; the scores of an evaluation, the times of the files that were scored.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(folder)), path.read_bytes()
        if name == "log.txt" or name.startswith("tensorboard/"):
            continue
        if path.suffix == ".ckpt":
            saved = torch.load(path, map_location="cpu", weights_only=True)
            assert saved.pop("seconds") > 0
            data = repr(plain(saved)).encode()
        elif path.name == "metrics.csv":
            data = re.sub(rb"(?m)^\d+,train/(seconds|images_per_second|data_wait),.*\n", b"", data)
        elif path.parent.name == "scores":
            data = re.sub(rb'"stamp": "[^"]*"', b"", data)
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def plain(value):
    """Nested values with each tensor as its numbers."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value
