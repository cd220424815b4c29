"""README says what is there: files, targets, registries, configurations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.filter_config import FilterConfig
from regionedit.command_line import load_config
from regionedit.config import AppConfig, EditConfig, EvaluateConfig, TrainConfig

ROOT = Path(__file__).parents[1]
KINDS = {"train": TrainConfig, "edit": EditConfig, "evaluate": EvaluateConfig, "filter": FilterConfig}
README = (ROOT / "README.md").read_text()


def tree() -> list[Path]:
    """The paths of the annotated file tree."""
    block = re.search(r"## Files\n\n```\n(.*?)```", README, re.S).group(1)
    paths, parents = [], {}
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth] = parents.get(depth - 1, Path()) / name
        paths.append(parents[depth])
    return paths


@pytest.mark.parametrize("path", tree(), ids=str)
def test_every_file_of_the_tree_exists(path):
    assert (ROOT / path).exists()


def test_every_module_is_in_the_tree():
    package = ROOT / "src" / "regionedit"
    told = {path.name for path in tree()}
    assert [path.name for path in package.iterdir() if path.name[0] not in "_." and path.name not in told] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))))
def test_every_make_target_exists(target):
    assert target in re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"configs/\w+\.yaml", README))))
def test_every_configuration_named_can_be_read(name):
    load_config(KINDS[Path(name).stem.split("_")[0]], ROOT / name)


@pytest.mark.parametrize("name", ["app_microworld", "evaluate_microworld", "evaluate_demo", "evaluate_painters"])
def test_the_default_editor_is_the_same_everywhere(name):
    default = load_config(EditConfig, ROOT / "configs/edit_microworld.yaml")
    kind = AppConfig if name.startswith("app") else EvaluateConfig
    other = load_config(kind, ROOT / f"configs/{name}.yaml")
    assert other.generator == default.generator and other.mask_source == default.mask_source
    assert replace(other.region, checkpoint=default.region.checkpoint) == default.region
