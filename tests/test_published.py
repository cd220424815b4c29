"""Known numbers: published figures and their flaws, and the calibration of the evaluation against them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.functional import normalize

from regionedit.config import EvaluateConfig
from regionedit.evaluation import BENCHMARKS, calibration
from regionedit.evaluation.calibration import check_data, check_expected, checksum_verdict, magicbrush_checksum
from regionedit.evaluation.protocols import FOLDER, Protocol
from regionedit.evaluation.published import UNKNOWN, of_benchmark, read_published

ROWS = read_published()
TABLE = {
    "source": "Somebody, Table 1",
    "protocol": "unknown",
    "benchmark": "emu_edit",
    "columns": ["L1", "DINO"],
    "rows": [["A", 0.1, 0.9]],
}


def by_source(part: str, benchmark: str | None = None) -> dict[str, dict[str, float]]:
    return {r.method: r.figures for r in ROWS if part in r.source and benchmark in (None, r.benchmark)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.benchmark}-{row.method}")
def test_every_row_has_a_source_a_protocol_and_sane_numbers(row):
    assert "Table" in row.source or "arXiv" in row.source
    assert row.benchmark in BENCHMARKS
    assert row.protocol == UNKNOWN or (FOLDER / f"{row.protocol}.yaml").is_file()
    assert row.figures and all(type(figure) in (int, float) for figure in row.figures.values())
    for title, figure in row.figures.items():
        if title.startswith("G_"):
            assert 0 <= figure <= 10
        elif title == "ImgEdit":
            assert 1 <= figure <= 5
        elif title == "PSNR":
            assert 10 < figure < 40
        elif title in ("CLIP whole", "CLIP edited", "LC-T"):
            assert 15 < figure < 30  # 100 x cosine
        else:
            assert 0 < figure < 1, title
        if title.upper().startswith(("CLIPDIR", "CLIP-D")):
            assert figure < 0.25


@pytest.mark.parametrize("name", sorted({row.protocol for row in ROWS} - {UNKNOWN}))
def test_the_rows_of_a_protocol_stand_in_its_columns(name):
    protocol = Protocol.read(name)
    for row in (row for row in ROWS if row.protocol == name):
        assert set(row.figures) <= set(protocol.columns) and row.benchmark == protocol.benchmark, row


def test_exactly_the_rows_whose_mean_square_exceeds_their_mean_difference_are_flagged():
    """For values in [0, 1] a square is at most the value. No method comes twice in one table."""
    assert len({(r.source, r.benchmark, r.method) for r in ROWS}) == len(ROWS)
    violating = [r for r in ROWS if {"L1", "L2"} <= set(r.figures) and r.figures["L2"] > r.figures["L1"]]
    assert violating == [r for r in ROWS if r.impossible]
    assert [r.method for r in violating] == ["RF-Solver"]


def test_the_overall_scores_of_gedit_are_means_of_the_printed_tasks():
    """The authors print 6.97 for the mean of the eleven figures of Step1X-Edit v1.1 (7.449, 7.382, ..., 6.852)."""
    by_task, printed = by_source("step1x-edit.github.io (2025-07-31), GPT"), by_source("EVAL.md of GEdit-Bench")
    assert len(by_task) == 8 and by_task["Step1X-Edit v1.1"]["G_O"] == pytest.approx(6.97, abs=0.005)
    assert printed["Step1X-Edit v1.1"] == {"G_SC": 7.65, "G_PQ": 7.41, "G_O": 7.35}  # the later table, by Qwen
    same, others = of_benchmark("gedit", "gedit_qwen")
    assert len(same) == 10 and all("Qwen" in row.source for row in same) and any("GPT" in row.source for row in others)


def test_a_soft_max_over_the_printed_systems_adds_up_to_one():
    for setting in ("single instruction", "several instructions"):
        scores = [figures["PickScore"] for figures in by_source(f"Table 1 ({setting})").values()]
        assert len(scores) == 6 and sum(scores) == pytest.approx(1, abs=2e-4)


def test_rows_of_a_benchmark_are_parted_by_protocol():
    same, others = of_benchmark("emu_edit", "ultraedit")
    assert {r.protocol for r in same} == {"ultraedit"} and len(same) == 11 + 5 + 7
    assert {"icedit", "omnigen", UNKNOWN} == {r.protocol for r in others}
    assert {r.benchmark for r in same} == {"emu_edit"}
    same, others = of_benchmark("emu_edit_unfiltered", "omnigen")
    assert [r.method for r in same] == ["OmniGen"] and {"ultraedit", "icedit"} <= {r.protocol for r in others}


def test_a_figure_that_was_not_printed_is_left_out(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([TABLE | {"rows": [["A", None, 0.9, {"note": "n"}]], "note": "all"}]))
    (row,) = read_published(path)
    assert row.figures == {"DINO": 0.9} and (row.note, row.table_note) == ("n", "all")


def test_expected_numbers_are_reported_as_within_or_outside_the_tolerance():
    summary = {"metrics": {"clip_direction": {"mean": 0.0791}, "clip_text": {"mean": 0.29}}}
    expected = {"clip_direction": 0.0782, "clip_text": 0.2648, "l1": 0.1217}
    assert check_expected(summary, expected, 0.01) == [
        "clip_direction: 0.0791, expected 0.0782 ± 0.01: within (+0.0009)",
        "clip_text: 0.2900, expected 0.2648 ± 0.01: OUTSIDE (+0.0252)",
        "l1: not measured; expected 0.1217",
    ]


class Encoder:
    """Embeds pictures by the red value of their first pixel, and texts by their length."""

    def unit_pictures(self, pictures):
        return normalize(torch.tensor([[float(p.getpixel((0, 0))[0]), 1.0] for p in pictures]), dim=-1)

    def unit_texts(self, texts):
        return normalize(torch.tensor([[float(len(t)), 1.0] for t in texts]), dim=-1)


def target(red: int, caption: str | None, scored: bool = True):
    captions = None if caption is None else SimpleNamespace(target=caption)
    picture = Image.new("RGB", (4, 4), (red, 0, 0))
    return SimpleNamespace(id="1", scored=scored, truth_image=picture, request=SimpleNamespace(captions=captions))


def test_the_checksum_is_the_mean_cosine_of_targets_and_captions_and_needs_both():
    cases = [target(2, "ab"), target(0, "abc"), target(9, "unscored turn", scored=False)]
    assert magicbrush_checksum(cases, Encoder()) == (pytest.approx((1 + 1 / np.sqrt(10)) / 2, abs=1e-6), 2)
    many = [target(2, "ab")] * 70 + [target(0, "abc")] * 30
    assert magicbrush_checksum(many, Encoder()) == (pytest.approx(0.7 + 0.3 / np.sqrt(10), abs=1e-6), 100)
    with pytest.raises(ValueError, match="^1: the checksum needs target pictures and captions"):
        magicbrush_checksum([target(1, None)], Encoder())
    with pytest.raises(ValueError, match="needs cases"):
        magicbrush_checksum([], Encoder())


def test_the_checksum_is_printed_only_for_a_benchmark_and_clip_with_a_known_value(monkeypatch):
    monkeypatch.setattr(calibration, "load_backbone", lambda field, name, device: Encoder())
    cases = [target(2, "ab"), target(0, "abc")]
    config = EvaluateConfig(benchmark="magicbrush", judge="ViT-B-32,openai")
    assert [line[:40] for line in check_data(config, cases)] == ["MagicBrush checksum: 0.65811 over 2 cases"[:40]]
    assert check_data(replace(config, judge="ViT-L-14,openai"), cases) == []
    assert check_data(replace(config, benchmark="emu_edit"), cases) == []


@pytest.mark.parametrize(
    ("found", "n", "said"),
    [
        (0.28260, 1053, "0.28260, known 0.28259: right"),
        (0.28554, 535, "0.28554, known 0.28554: right"),
        (0.30690, 1053, "0.30690, known 0.28259: WRONG; about 0.307 means global"),
        (0.28554, 100, "over 100 cases; known only for 1,053 or 535 cases"),
    ],
)
def test_the_verdict_knows_all_turns_and_final_turns(found, n, said):
    assert said in checksum_verdict(found, n) and "\n" not in checksum_verdict(found, n)


def test_the_main_papers_tables_are_whole():
    paper = "Multi-Scale Learnable Regions"
    assert len(by_source(f"{paper}, Table 2")) == 11
    assert len(by_source(f"{paper}, Table 3", "magicbrush")) == 5
    assert len(by_source(f"{paper}, Table 3", "magicbrush_multi_turn")) == 5
    assert len(by_source(f"{paper}, Table 4")) == 5
    ours = {"CLIPdir": 0.1088, "CLIPout": 0.2842, "L1": 0.0723, "CLIPimg": 0.8913, "DINO": 0.8337}
    assert by_source(f"{paper}, Table 2")["Learnable Regions (5M)"] == ours
    assert by_source(f"{paper}, Table 4")["Learnable Regions"] == ours
