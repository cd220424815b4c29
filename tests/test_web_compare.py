"""One request under several mask sources; what was compared becomes the items of a human study."""

import zipfile
from dataclasses import replace

import pytest

from regionedit.config import RegionConfig, VlmBoxConfig
from regionedit.evaluation.benchmarks import BENCHMARKS
from regionedit.web.compare_tab import COLUMNS, MARKED, Comparer, sheet, study_items
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch
from regionedit.web.studio import Studio
from tests.test_infer import photo

SETTINGS = Settings(
    "make the red circle blue", num_inference_steps=2, source_caption="a red circle", target_caption="a blue circle"
)


@pytest.fixture(scope="module")
def comparer(tiny_app_config, tiny_judge_dir) -> Comparer:
    return Comparer(Studio(replace(tiny_app_config, judge=f"local-dir:{tiny_judge_dir}")))


@pytest.fixture
def picture(comparer, tmp_path):
    return comparer.studio.open(photo(tmp_path / "a.png"))


def compared(comparer, picture, *sources):
    cut = Cut.of(comparer.studio.config.region)
    return list(comparer.compare(SETTINGS, Sketch(picture), cut, sources, []))


def test_every_system_has_a_row_with_times_and_scores(comparer, picture):
    made = compared(comparer, picture, "centre_box", "everything", MARKED)
    rows = [dict(zip(COLUMNS, one.row(), strict=True)) for one in made]
    assert [row["system"] for row in rows] == ["centre_box", "everything", MARKED]
    assert [row["edited, %"] for row in rows] == [25.0, 100.0, 0.0]
    assert {row["pixels changed outside"] for row in rows} == {0}
    assert all(isinstance(row["clip_direction"], float) for row in rows[:2])
    assert sheet(made).width > 3 * 256


def test_one_that_fails_does_not_stop_the_others_and_a_failure_of_all_is_an_error(comparer, picture):
    failed, made = compared(comparer, picture, "sam", "everything")
    assert "click" in failed.row()[0] and made.edit is not None
    with pytest.raises(ValueError, match=r"none could edit.*click"):
        compared(comparer, picture, "sam")


def test_only_what_is_offered_is_compared(comparer, picture):
    assert not {"sam", "vlm_box"} & {*comparer.mask_sources()}
    region = RegionConfig(vlm_box=VlmBoxConfig(endpoint="http://127.0.0.1:1/v1", endpoint_model="m"))
    assert "vlm_box" in Comparer(Studio(replace(comparer.studio.config, region=region))).mask_sources()
    with pytest.raises(ValueError, match="not offered"):
        compared(comparer, picture, "learned + sam")
    with pytest.raises(ValueError, match="at least one"):
        compared(comparer, picture)


def test_human_study_items_are_what_a_study_reads(comparer, picture, tmp_path):
    made = compared(comparer, picture, "centre_box", "everything")
    with zipfile.ZipFile(study_items([made, made], tmp_path / "items.zip")) as archive:
        archive.extractall(tmp_path / "items")
    cases = list(BENCHMARKS["folder"](tmp_path / "items" / "data"))
    assert [case.id for case in cases] == ["case_001", "case_002"]
    assert {path.name for path in (tmp_path / "items" / "systems" / "everything").iterdir()} == {
        "case_001.png",
        "case_002.png",
    }
