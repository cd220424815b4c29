"""README and the pages of docs/ say what is there: links, tests, files, targets, configurations."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.filter_config import FilterConfig
from regionedit.command_line import load_config
from regionedit.config import AppConfig, EditConfig, EvaluateConfig, TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md")) + [ROOT / "README.md", ROOT / "checkpoints" / "microworld" / "README.md"]


def test_links_have_a_target():
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())]
    assert [f"{page}: {to}" for page, to in links if "://" not in to and not (page.parent / to).exists()] == []


def test_tests_that_are_named_exist():
    named = [found for page in PAGES for found in re.findall(r"`(tests/\w+\.py)::(\w+)`", page.read_text())]
    assert named
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_the_start_page_lists_every_page():
    start = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in start] == ["README.md"]


KINDS = {"train": TrainConfig, "edit": EditConfig, "evaluate": EvaluateConfig, "filter": FilterConfig}
README = (ROOT / "README.md").read_text()


def tree() -> list[Path]:
    """The paths of the annotated file tree."""
    block = re.search(r"## Files\n\n```\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.S).group(1)
    paths, parents = [], {}
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth] = parents.get(depth - 1, Path()) / name
        paths.append(parents[depth])
    return paths


def test_every_file_of_the_tree_exists():
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_every_module_is_in_the_tree():
    package = ROOT / "src" / "regionedit"
    listed = {path.name for path in tree()}
    assert [path.name for path in package.iterdir() if path.name[0] not in "_." and path.name not in listed] == []


def test_every_make_target_exists():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M)) <= set(targets)


def test_every_configuration_named_can_be_read():
    for name in sorted(set(re.findall(r"configs/\w+\.yaml", README))):
        load_config(KINDS[Path(name).stem.split("_")[0]], ROOT / name)


def test_a_reader_is_done_with_it_in_five_minutes():
    assert len(README.split("---", 2)[2].split()) <= 1200


@pytest.mark.parametrize("name", ["app_microworld", "evaluate_microworld", "evaluate_demo", "evaluate_default_editor"])
def test_the_default_editor_is_the_same_everywhere(name):
    default = load_config(EditConfig, ROOT / "configs/edit_microworld.yaml")
    kind = AppConfig if name.startswith("app") else EvaluateConfig
    other = load_config(kind, ROOT / f"configs/{name}.yaml")
    assert other.generator == default.generator and other.mask_source == default.mask_source
    differing = {"checkpoint": default.region.checkpoint}
    if name == "evaluate_demo":  # its predictor is less decided
        differing |= {name: getattr(default.region, name) for name in ("whole_above", "nothing_below", "threshold")}
    assert replace(other.region, **differing) == default.region
