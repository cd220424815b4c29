"""The configuration: errors name the key, and a configuration that was read can be written and read again."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from regionedit.command_line import load_config, parse_command, save_config
from regionedit.config import (
    DESCRIBE_CONFIGS,
    GENERATOR_CONFIGS,
    AppConfig,
    EditConfig,
    EndpointConfig,
    EvaluateConfig,
    InferConfig,
    PairJudgeConfig,
    TrainConfig,
)
from regionedit.config.renamed import RENAMED, under_present_names
from regionedit.describe import DESCRIBERS
from regionedit.generators import GENERATORS

CONFIGS = sorted(Path("configs").glob("**/*.yaml"))


def config_class(path: Path) -> type:
    return {"train": TrainConfig, "edit": EditConfig, "evaluate": EvaluateConfig}[path.stem.split("_")[0]]


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem.startswith(("train_", "edit_", "evaluate_"))], ids=str)
def test_every_shipped_config_is_read(path):
    load_config(config_class(path), path)


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
        ("trainer: {true: 1}", "trainer: put the name 'true' in quotes"),
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


@pytest.mark.parametrize("config_class", [TrainConfig, InferConfig, EvaluateConfig, AppConfig, PairJudgeConfig])
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


def test_every_generator_and_describer_has_its_settings():
    assert GENERATORS.keys() == GENERATOR_CONFIGS.keys()
    assert DESCRIBERS.keys() == DESCRIBE_CONFIGS.keys()


@pytest.mark.parametrize("name", GENERATOR_CONFIGS)
def test_the_name_selects_the_generators_own_settings_and_no_others(name, tmp_path):
    (tmp_path / "edit.yaml").write_text(f"generator: {{name: {name}, size: 128}}")
    for config in (
        load_config(EditConfig, tmp_path / "edit.yaml"),
        load_config(EvaluateConfig, overrides=["--generator.size=128", f"--generator.name={name}"]),
    ):
        assert config.generator == GENERATOR_CONFIGS[name](size=128)
    own = {field.name for field in fields(GENERATOR_CONFIGS[name])}
    others = [{field.name for field in fields(kind)} - own for kind in GENERATOR_CONFIGS.values()]
    for setting in {min(settings) for settings in others if settings}:
        with pytest.raises(ValueError, match=f"unknown key 'generator.{setting}'; only generator .* has this setting"):
            load_config(EditConfig, overrides=[f"--generator.name={name}", f"--generator.{setting}=1"])


@pytest.mark.parametrize("name", GENERATOR_CONFIGS)
def test_a_generator_reads_each_of_its_settings(name):
    """The files of the package that name the dataclass, or its parent for pipelines, read every field that it has."""
    kind = GENERATOR_CONFIGS[name]
    names = "|".join(parent.__name__ for parent in kind.__mro__[:-2])  # without GeneratorConfig
    texts = [path.read_text() for path in Path("src/regionedit/generators").glob("*.py")]
    code = "".join(text for text in texts if re.search(rf"\b({names})\b", text)) + inspect.getsource(kind)
    own = {field.name for field in fields(kind)} - {"name"}
    assert not [setting for setting in own if not re.search(rf"(config|settings|self)\.{setting}\b", code)]


def test_a_generator_on_the_command_line_drops_the_files_settings_that_it_lacks(tmp_path, caplog):
    path = tmp_path / "edit.yaml"
    path.write_text("generator: {name: instruct_pix2pix, strength: 0.5, num_inference_steps: 3, size: 96}")
    config = load_config(EditConfig, path, ["--generator.name=masked_token", "--generator.temperature=1"])
    assert config.generator == GENERATOR_CONFIGS["masked_token"](num_inference_steps=3, size=96, temperature=1.0)
    assert "generator.strength does not apply to the generator of the command line" in caplog.text
    with pytest.raises(ValueError, match="only generator .* has this setting"):
        load_config(EditConfig, path, ["--generator.name=masked_token", "--generator.strength=0.5"])
    path.write_text("generator: {name: instruct_pix2pix, strength: 0.5}\ndescribe: {name: endpoint, endpoint_model: m}")
    config = load_config(EditConfig, path, ["--generator.name=masked_token", "--describe.name=given"])
    assert (config.generator.name, config.describe.name) == ("masked_token", "given")
    path.write_text("generator: {name: instruct_pix2pix, strenth: 0.5}")
    with pytest.raises(ValueError, match="unknown key 'generator.strenth'"):
        load_config(EditConfig, path, ["--generator.name=masked_token"])


def test_a_name_that_no_generator_has_is_refused():
    with pytest.raises(ValueError, match="^generator.name: 'flux' is none of diffusers_inpaint, "):
        load_config(EditConfig, overrides=["--generator.name=flux"])
    with pytest.raises(ValueError, match="region.attention.name"):
        load_config(EditConfig, overrides=["--region.attention.name=stable_diffusion"])


@pytest.mark.parametrize("old", RENAMED)
def test_an_earlier_name_is_refused_with_the_new_one(old):
    config_class = EditConfig if old.startswith(("region", "describe")) else TrainConfig
    with pytest.raises(ValueError, match=f"'{old}'; it is called '{RENAMED[old]}' now"):
        load_config(config_class, overrides=[f"--{old}", "1"])


@pytest.mark.parametrize(
    ("generator", "present"),
    [
        ("stable_diffusion", {"latent_blend": True, "strength": None, "temperature": 2.0}),
        ("instruct_pix2pix", {"latent_blend": False, "strength": 0.8, "temperature": 2.0}),
        ("diffusers_inpaint", {"latent_blend": False, "strength": None, "temperature": 2.0}),
        ("next_scale", {"latent_blend": False, "strength": None, "temperature": 1.0}),
    ],
)
def test_stored_settings_of_an_earlier_version_keep_what_their_generator_read(generator, present):
    old = {"name": generator, "steps": 8, "blend": True, "temperature": 2.0, "start": 0.8, "latent_blend": False}
    old |= {"strength": None, "token_temperature": 1.0}
    expected = {"name": generator, "num_inference_steps": 8, **present}
    stored = under_present_names({f"generator.{name}": value for name, value in old.items()})
    assert stored == {f"generator.{name}": value for name, value in expected.items()}
    assert under_present_names(stored) == stored


def test_a_describer_has_only_its_own_settings():
    config = load_config(EditConfig, overrides=["--describe.name=endpoint", "--describe.endpoint=http://x/v1"])
    assert config.describe == EndpointConfig(endpoint="http://x/v1")
    with pytest.raises(ValueError, match="only describe two_stage has this setting"):
        load_config(EditConfig, overrides=["--describe.name=vlm", "--describe.language=x"])
