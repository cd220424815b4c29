"""The configuration: errors name the key, and a configuration that was read can be written and read again."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from regionedit.command_line import load_config, parse_command, save_config
from regionedit.config import EditConfig, EvaluateConfig, TrainConfig

CONFIGS = sorted(Path("configs").glob("**/*.yaml"))


def config_class(path: Path) -> type:
    return {"train": TrainConfig, "edit": EditConfig, "evaluate": EvaluateConfig}[path.stem.split("_")[0]]


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem.startswith(("train_", "edit_", "evaluate_"))], ids=str)
def test_every_shipped_config_is_read(path):
    config = load_config(config_class(path), path)
    assert isinstance(config, config_class(path))


def test_a_file_and_overrides_win_over_defaults_in_this_order(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("optimizer:\n  lr: 1e-4\nloss: {area: 0.1}\ntrainer: {devices: 2}\n")
    config = load_config(TrainConfig, path, ["--loss.area", "-0.3", "--trainer.accelerator", "cpu"])
    assert config.optimizer.lr == 1e-4 and isinstance(config.optimizer.lr, float)
    assert config.loss.area == -0.3
    assert config.trainer == {"devices": 2, "accelerator": "cpu"}
    assert config.optimizer.warmup_steps == TrainConfig().optimizer.warmup_steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {lrr: 1}", "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        ("losses: {area: 1}", "unknown key 'losses'; did you mean 'loss'?"),
        ("optimizer: {lr: fast}", "optimizer.lr: Expected a float"),
        ("seed: 1.5", "seed: Expected a int"),
        ("step: {gradient: most}", "step.gradient: Expected a one of"),
        ("- a list", "not a configuration"),
        ("a: [unclosed", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key(tmp_path, text, message):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_config(TrainConfig, path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [["--los.area", "1"], ["--loss.area", "x"], ["--config", "missing.yaml"], ["stray"], ["--seed"]],
    ids=str,
)
def test_a_wrong_command_line_exits_2_with_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_command(TrainConfig, arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert any(word.strip("-") in printed[0] for word in arguments)


@pytest.mark.parametrize("config_class", [TrainConfig, EditConfig, EvaluateConfig])
def test_help_documents_every_field(config_class, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_command(config_class, ["--help"])
    assert stop.value.code == 0
    entries = capsys.readouterr().out.split("\n  --")
    bare = [entry.split()[0] for entry in entries[1:] if len(entry.replace("(type:", "\0").split("\0")[0].split()) < 3]
    assert bare == []


def test_printed_and_saved_configurations_read_back_equal(tmp_path, capsys):
    config = load_config(TrainConfig, overrides=["--loss.area=0.25", "--trainer.devices=2", "--data.validation=null"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(TrainConfig, tmp_path / "saved.yaml") == config
    with pytest.raises(SystemExit) as stop:
        parse_command(TrainConfig, ["--config", str(tmp_path / "saved.yaml"), "--print_config"])
    assert stop.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert load_config(TrainConfig, tmp_path / "printed.yaml") == config


def test_a_command_adds_arguments_by_subclassing(tmp_path):
    @dataclass
    class Command(EditConfig):
        """Edit one picture.

        Args:
            image: the picture.
        """

        image: str | None = None

    config = parse_command(Command, ["--image", "a.png", "--region.threshold", "0.4"])
    assert (config.image, config.region.threshold, config.device) == ("a.png", 0.4, "auto")
