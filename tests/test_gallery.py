"""The gallery shows pictures and scores of every case, escapes all texts, and stays small."""

import html
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionedit.config import EvaluateConfig
from regionedit.evaluation import gallery
from regionedit.evaluation.entries import Entry
from regionedit.evaluation.outcomes import Outcome
from regionedit.records import Captions, EditCase, EditRequest


def case(number: int, side: int = 32) -> EditCase:
    picture = Image.fromarray(np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8))
    captions = Captions("a <b>cat</b>", 'a "dog"')
    return EditCase(f"c{number:03d}", EditRequest(picture, "make <it> a dog", captions=captions), "replace")


def entry(title: str, cases: list[EditCase], failed: dict[str, str]) -> Entry:
    scores = [np.nan if c.id in failed else 0.25 * n for n, c in enumerate(cases)]
    rows = pd.DataFrame({"id": [c.id for c in cases], "operation": "replace", "l1": scores, "dino": np.nan})

    def outcomes(chosen):
        reasons = ((c, failed.get(c.id)) for c in chosen)
        return (Outcome(c, None if reason else c.request.image, failed=reason) for c, reason in reasons)

    return Entry(title, title, outcomes, EvaluateConfig(), True, rows=rows)


def page(cases: list[EditCase], tmp_path, *systems: Entry, **failed: str) -> str:
    gallery.write_gallery(tmp_path / "gallery.html", cases, entry("x", cases, failed), systems)
    return (tmp_path / "gallery.html").read_text()


def test_every_case_is_there_with_its_scores(tmp_path):
    text = page([case(0), case(1)], tmp_path)
    scores = [json.loads(html.unescape(found)) for found in re.findall(r'data-scores="([^"]*)"', text)]
    assert scores == [{"l1": 0.0}, {"l1": 0.25}]
    assert '<option value="l1">L1</option>' in text and "dino" not in text  # not measured, so not a sort key


def test_pictures_of_other_systems_are_shown_beside_the_own(tmp_path):
    cases = [case(0), case(1)]
    one, two = page(cases, tmp_path, entry("baseline", cases, {"c000": "x"})).split('<section class="case"')[1:]
    assert 'alt="baseline"' not in one and two.count('alt="baseline"') == 1


def test_texts_are_escaped_and_nothing_is_loaded_from_elsewhere(tmp_path):
    text = page([case(0)], tmp_path)
    assert "make &lt;it&gt; a dog" in text and "a &lt;b&gt;cat" in text and "<b>cat" not in text
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 2 and all(source.startswith("data:image/") for source in sources)
    assert "http" not in text


def test_a_failed_case_says_why(tmp_path):
    assert "failed: no &lt;luck&gt;" in page([case(0)], tmp_path, c000="no <luck>")


def test_a_large_benchmark_is_thinned_evenly_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "SHOWN", 3)
    text = page([case(n) for n in range(7)], tmp_path)
    assert re.findall(r"c00\d", text) == ["c000", "c003", "c006"] and "one in 3 of 7 cases" in text


@pytest.mark.parametrize(("side", "kind"), [(64, "png"), (512, "jpeg")])
def test_large_pictures_are_shrunk(tmp_path, side, kind):
    text = page([case(0, side)], tmp_path)
    assert f"data:image/{kind}" in text and len(text) < 60_000
