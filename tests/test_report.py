"""The report and the gallery: one file each with everything in it, and tables that say what the summary says."""

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from data_prep.microworld.pack import pack
from regionedit.config import EvaluateConfig
from regionedit.evaluation import gallery
from regionedit.evaluation.benchmarks import Microworld
from regionedit.evaluation.charts import draw_curves, draw_trade_off
from regionedit.evaluation.entries import Entry
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.evaluation.report import choose_cases, write_report
from regionedit.evaluation.tables import comparison, evaluation_tables, few_cases, print_tables, share_of_ceiling
from regionedit.records import Captions, EditCase, EditRequest


def score(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 4}


def block(iou: float, **more) -> dict:
    metrics = {"region_iou": score(iou), "pointing": score(0.9)}
    return {"n": 4, "failed": 1, "metrics": metrics, "by": {}} | more


SUMMARY = {
    "benchmark": "microworld",
    "protocol": {"name": "microworld", "headline_operations": ["replace", "remove"], "judge": "<judge>"},
    "name": "learned",
    **block(0.6, by={"operation": {"remove": block(0.5), "add": block(0.1)}}),
    "baselines": {
        "clip_similarity": block(0.4, title="CLIP similarity", note="threshold 0.61, chosen on validation"),
        "truth": block(1.0, title="true region (oracle)", note=""),
    },
    "systems": {},
    "ceiling": block(0.8),
}
SUMMARY["metrics"]["pointing_chance"] = score(0.4)


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    pack("test", 5, folder / "benchmark", workers=1, seed=0, shard_size=100)
    cases = Microworld(folder / "benchmark")
    flat = np.full((64, 64), 0.5, np.float32)

    def outcome(case):
        failed = "no <room>" if case.id.endswith("4") else None
        return Outcome(case, failed=failed) if failed else Outcome(case, case.truth_image, flat, flat)

    rows = pd.DataFrame(
        {
            "id": [case.id for case in cases],
            "operation": [case.operation for case in cases],
            "failed": [None] * 4 + ["no <room>"],
            "region_iou": [0.1, 0.2, 0.3, 0.4, np.nan],
            "edit_success": [1.0, 0.0, 1.0, 1.0, np.nan],
        }
    )
    log = folder / "metrics.csv"
    log.write_text("step,name,value\n10,train/seconds,6\n20,validation/iou/local,0.3\n40,validation/iou/local,0.5\n")
    own, other = (
        Entry(title, title, lambda chosen: map(outcome, chosen), EvaluateConfig(), True, CaseFolder(folder), rows=rows)
        for title in ("learned", "in-painter, everywhere")
    )
    config, tables = replace(EvaluateConfig(), training_log=str(log)), evaluation_tables(SUMMARY)
    write_report(folder / "report.html", config, cases, [own], [other], SUMMARY, tables)
    return (folder / "report.html").read_text()


def test_nothing_is_loaded_from_elsewhere(html):
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in html and "https://" not in html
    assert "<script" not in html


def test_every_system_has_a_row_of_pictures(html):
    sheet = html[html.index("Side by side") : html.index("<h2>Learning</h2>")]
    heads = re.findall(r"<th>(.+?)</th>", sheet)
    assert re.findall(r"<tr><td>(.+?)</td>", sheet) == ["source, truth", "learned", "in-painter, everywhere"]
    assert 0 < len(heads) <= 5 and sheet.count('alt="learned: edited"') == len(heads)
    assert sheet.count('alt="in-painter, everywhere: region"') == sheet.count('alt="source, truth: true edit"')


def test_few_cases_are_told_one_by_one():
    def entry(title, rows, edited=True):
        return Entry(title, title, None, EvaluateConfig(), edited, rows=rows)

    rows = pd.DataFrame({"id": ["a", "b"], "region_iou": [0.25, np.nan], "seconds": [1.5, np.nan]})
    entries = [entry("learned", rows), entry("blend", rows.assign(region_iou=0.5)), entry("chance", rows, False)]
    (table,) = few_cases(SUMMARY | {"n": 2}, entries)
    assert table.heads == ("case", "IoU", "s/edit") and table.rules == {2}
    assert table.rows == (
        ("a: learned", "0.250", "1.50"),
        ("a: blend", "0.500", "1.50"),
        ("b: learned", "", ""),
        ("b: blend", "0.500", ""),
    )
    assert few_cases(SUMMARY | {"n": 14}, [entry("x", pd.concat([rows] * 7))]) == []


def test_pictures_scores_failures_and_curves_are_there(html):
    assert 'alt="learning curves"' in html
    for name in ("source", "probability", "region", "edited", "true region", "true edit"):
        assert f"<figcaption>{name}</figcaption>" in html
    assert "edit succeeded" in html and "edit failed" in html
    assert "region IoU 0.10" in html
    assert "0.600 ±0.100" in html and "share of the ceiling: IoU 75%" in html


def test_text_is_escaped(html):
    assert "no &lt;room&gt;" in html and "&lt;judge&gt;" in html
    assert "<room>" not in html


def test_the_comparison_runs_from_the_rivals_to_the_oracle():
    table = comparison(SUMMARY)
    names = [row[0] for row in table.rows]
    assert names == ["CLIP similarity", "learned (this run)", "trained with masks (ceiling)", "true region (oracle)"]
    assert "0.400" in table.note and "threshold 0.61" in table.note
    assert [row[1] for row in comparison(SUMMARY, intervals=False).rows] == ["0.400", "0.600", "0.800", "1.000"]


def test_the_printed_table_holds_the_same(capsys):
    print_tables(SUMMARY, Console(width=120))
    printed = capsys.readouterr().out
    assert "learned (this run)" in printed and "0.600" in printed and "By operation" in printed
    assert "4 cases, 1 failed" in printed and share_of_ceiling(SUMMARY | {"ceiling": None}) == ""


def test_examples_of_every_operation_and_the_worst_are_chosen():
    count = 40
    rows = pd.DataFrame(
        {
            "id": [f"{i}" for i in range(count)],
            "operation": ["remove", "add"] * (count // 2),
            "failed": ["broken"] + [None] * (count - 1),
            "region_iou": np.linspace(0, 1, count),
        }
    )
    chosen = dict(choose_cases(rows))
    assert len(chosen["Examples: remove"]) == len(chosen["Examples: add"]) == 6
    assert chosen["The worst regions"][0] == "1" and "0" not in sum(chosen.values(), [])


def test_curves_need_a_log_that_exists_and_holds_validation(tmp_path):
    log = tmp_path / "metrics.csv"
    assert draw_curves(None) == ""
    for content in (None, "", "step,loss\n1,2\n"):
        if content is not None:
            log.write_text(content)
        with pytest.raises(ValueError, match="^training_log: "):
            draw_curves(str(log))
    log.write_text("step,name,value\n1,train/loss,2\n")
    assert draw_curves(str(log)) == ""


def test_the_trade_off_needs_both_scores():
    assert draw_trade_off(SUMMARY) == ""
    both = {"outside_truth_change": score(0.2), "clip_direction": score(0.1)}
    one = {"outside_truth_change": {"mean": 0.0, "low": None, "high": None, "n": 1}, "clip_direction": score(0.0)}
    summary = {"name": "learned", "metrics": both, "baselines": {"identity": {"title": "source", "metrics": one}}}
    assert draw_trade_off(summary).startswith("data:image/png")


def case(number: int, side: int = 32) -> EditCase:
    picture = Image.fromarray(np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8))
    captions = Captions("a <b>cat</b>", 'a "dog"')
    return EditCase(f"c{number:03d}", EditRequest(picture, "make <it> a dog", captions=captions), "replace")


def shown_entry(title: str, cases: list[EditCase], failed: dict[str, str]) -> Entry:
    scores = [np.nan if c.id in failed else 0.25 * n for n, c in enumerate(cases)]
    rows = pd.DataFrame({"id": [c.id for c in cases], "operation": "replace", "l1": scores, "dino": np.nan})

    def outcomes(chosen):
        reasons = ((c, failed.get(c.id)) for c in chosen)
        return (Outcome(c, None if reason else c.request.image, failed=reason) for c, reason in reasons)

    return Entry(title, title, outcomes, EvaluateConfig(), True, rows=rows)


def page(cases: list[EditCase], tmp_path, *systems: Entry, **failed: str) -> str:
    gallery.write_gallery(tmp_path / "gallery.html", cases, shown_entry("x", cases, failed), systems)
    return (tmp_path / "gallery.html").read_text()


def test_every_case_is_there_with_its_scores(tmp_path):
    text = page([case(0), case(1)], tmp_path)
    scores = [json.loads(unescape(found)) for found in re.findall(r'data-scores="([^"]*)"', text)]
    assert scores == [{"l1": 0.0}, {"l1": 0.25}]
    assert '<option value="l1">L1</option>' in text and "dino" not in text  # not measured, so not a sort key


def test_pictures_of_other_systems_are_shown_beside_the_own(tmp_path):
    cases = [case(0), case(1)]
    one, two = page(cases, tmp_path, shown_entry("baseline", cases, {"c000": "x"})).split('<section class="case"')[1:]
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
