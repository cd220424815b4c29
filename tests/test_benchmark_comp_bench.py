"""CompBench: cases of every task, and its metrics against numbers worked out apart from them."""

import numpy as np
import pytest
import torch
from PIL import Image

from regionedit.evaluation import METRICS
from regionedit.evaluation.benchmarks.comp_bench import CompBench, CompBenchLocal, CompBenchSecondTurn
from regionedit.evaluation.metrics import Settings
from regionedit.evaluation.outcomes import Outcome
from regionedit.records import Captions, EditCase, EditRequest
from tests.benchmark_fixtures import SIZE, picture, write_comp_bench

BOX = (8, 4, 24, 16)
pytestmark = pytest.mark.filterwarnings("ignore:data. .*rows")


def test_tasks_share_paths_and_a_case_without_a_usable_mask_is_counted(tmp_path):
    benchmark = CompBench(write_comp_bench(tmp_path))
    cases = {case.id: case for case in benchmark}
    assert list(cases)[:2] == ["add_001ca3cb_0_00003", "remove_001ca3cb_0_00003"]
    first = cases["add_001ca3cb_0_00003"]
    assert np.asarray(first.truth_mask)[4:16, 8:24].min() == 255
    assert np.asarray(first.truth_mask).astype(int).sum() == 12 * 16 * 255
    assert first.request.captions == Captions("", "a gray fish") and first.groups == {"suite": "local"}
    assert np.array_equal(first.truth_image, picture(50))
    assert cases["action_00000"].request.captions is None and cases["action_00000"].truth_mask is None
    assert benchmark.counts == {
        "rows": 6, "kept": 6, "of other tasks or turns": 0, "no instruction": 0,
        "without mask: it covers nothing": 1, "without mask: its row has none": 1,
    }  # fmt: skip


def test_a_suite_counts_what_belongs_to_others(tmp_path):
    assert CompBenchLocal(write_comp_bench(tmp_path)).counts["of other tasks or turns"] == 3
    second = CompBenchSecondTurn(tmp_path)
    assert {case.id.split("turn2")[0] for case in second} == {"multi_turn_add_", "multi_turn_remove_"}
    assert second.counts["of other tasks or turns"] == 4
    (tmp_path / "data" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match="has no row of add, remove, replace; its tasks: multi_turn_add"):
        CompBenchLocal(tmp_path)


class Brightness:
    """Embeds a picture by its mean brightness, a text by the number that it is."""

    def unit_pictures(self, pictures):
        return self._unit([np.asarray(each, np.float32).mean() / 255 for each in pictures])

    def unit_texts(self, texts):
        return self._unit([float(text) for text in texts])

    def _unit(self, values):
        values = torch.tensor(values)
        return torch.stack([values, (1 - values**2).clamp(min=0).sqrt()], 1)


def outcome(edited: Image.Image, caption: str, box=BOX, target: Image.Image | None = None) -> Outcome:
    mask = Image.new("L", SIZE)
    if box:
        mask.paste(255, box)
    request = EditRequest(Image.new("RGB", SIZE, "white"), "do it", captions=Captions("", caption), id="a")
    return Outcome(EditCase("a", request, "add", truth_mask=mask, truth_image=target), picture=edited)


def test_similarities_see_the_box_alone():
    settings = Settings(Brightness(), 8, 0.5)
    edited = Image.new("RGB", SIZE, "white")
    edited.paste("black", BOX)
    text, image = METRICS["comp_bench_text"], METRICS["comp_bench_image"]
    square = np.asarray(edited.resize((512, 512), Image.Resampling.BICUBIC), np.float32) / 255
    inside_HW = np.asarray(outcome(edited, "1").case.truth_mask.resize((512, 512), Image.Resampling.NEAREST)) > 0
    rows, columns = (np.flatnonzero(inside_HW.any(axis)) for axis in (1, 0))
    mean = square[rows[0] : rows[-1], columns[0] : columns[-1]].mean()  # without the last row and column
    (value,) = text.score_all([outcome(edited, "0.6|-1")], settings)
    assert value == pytest.approx(100 * (0.6 * mean + 0.8 * np.sqrt(1 - mean**2)) / 2, abs=1e-3), "at least 0 each"
    (same,) = image.score_all([outcome(edited, "1", target=edited)], settings)
    (other,) = image.score_all([outcome(edited, "1", target=Image.new("RGB", SIZE, "white"))], settings)
    assert same == pytest.approx(1, abs=1e-6) and other == pytest.approx(mean, abs=1e-3)
    assert np.isnan(text.score_all([outcome(edited, "1", box=None)], settings)[0])


def test_background_is_the_whole_square_with_black_inside():
    settings, psnr = Settings(None, 8, 0.5), METRICS["comp_bench_psnr"]
    edited = Image.new("RGB", SIZE, "white")
    edited.paste("black", BOX)
    assert psnr.score(outcome(edited, "1", box=(4, 1, 28, 20)), settings) > 90, "all changes lie inside"
    half = outcome(Image.new("RGB", SIZE, (230, 230, 230)), "1", box=(0, 0, 16, 24))
    expected = 10 * np.log10(1 / ((25 / 255) ** 2 / 2))  # half of the square is equal
    assert psnr.score(half, settings) == pytest.approx(expected, abs=0.01)
    assert np.isnan(psnr.score(outcome(edited, "1", box=(0, 0, *SIZE)), settings))
    assert METRICS["comp_bench_ssim"].score(half, settings) < 1
