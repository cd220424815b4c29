"""The documentation's links and the tests that it names exist."""

import re
from pathlib import Path

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
