"""What the page does, without the page: uploads, regions, edits, previews, results that carry their record."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stored_pictures import store

from regionedit.editor import Editor
from regionedit.images import png
from regionedit.mask_files import MaskReading
from regionedit.originals import open_source, pixels_of
from regionedit.results import changed_outside
from regionedit.web.handlers import streamed
from regionedit.web.result_file import read_result_png, restored, result_png
from regionedit.web.settings import Settings
from regionedit.web.sketch import Cut, Sketch, stroke_mask
from regionedit.web.studio import Studio
from tests.endpoints import endpoints
from tests.test_infer import photo

TEXT = "make the red circle blue"


@pytest.fixture(scope="module")
def studio(tiny_app_config) -> Studio:
    return Studio(replace(tiny_app_config, max_pixels=100_000, max_megabytes=1, mask_source="clip_similarity"))


@pytest.fixture
def picture(studio, tmp_path):
    return studio.open(photo(tmp_path / "tmp_ab12.png"), "my photo.png")


@pytest.fixture
def painted(picture) -> Sketch:
    """A sketch with a stroke and no region that was found."""
    return Sketch(picture).corrected(stroke_mask(picture.size, [(20, 20)], 6), adds=True)


@pytest.fixture
def cut(studio) -> Cut:
    return Cut.of(studio.config.region)


SETTINGS = Settings(
    TEXT, num_inference_steps=2, guidance_scale=3.0, source_caption="a red circle", target_caption="a blue circle"
)


HOLE = Image.fromarray(
    np.dstack([np.full((44, 60, 3), 90, np.uint8), 255 * (np.indices((44, 60))[1] > 9).astype(np.uint8)])
)
"""One colour, with a transparent strip at the left."""


def test_an_uploaded_mask_is_read_as_infer_reads_it(studio, picture, cut, tmp_path):
    HOLE.save(tmp_path / "m.png")
    mask = studio.open_mask(tmp_path / "m.png", picture, MaskReading("inverted"), "my mask.png")
    assert mask.getbbox() == (0, 0, 10, 44) and mask.info["path"] == "my mask.png"
    (edited,) = studio.edit(SETTINGS, Sketch.masked(picture, mask), cut)
    assert edited.mask.tobytes() == mask.tobytes() and "mask: what is transparent is edited" in edited.note
    assert edited.record["mask"]["path"] == "my mask.png"
    (api,) = studio.edit(SETTINGS, Sketch(picture), cut, mask=mask, mask_operations="invert")
    assert api.mask.getbbox() == (10, 0, 60, 44) and api.record["mask_operations"] == ["invert"]


def test_a_mask_file_is_edited_as_it_is_on_a_page_that_grows_regions(studio, picture, tmp_path, monkeypatch):
    """Opened on the page, or sent to the endpoint."""
    region, models = replace(studio.config.region, grow=8, feather=3.0), studio.editor.models
    studio, served = endpoints(replace(studio.config, region=region), tmp_path, monkeypatch)
    studio.editor.models = models  # they are loaded already
    HOLE.save(tmp_path / "m.png")
    photo(tmp_path / "p.png")
    mask = studio.open_mask(tmp_path / "m.png", picture, MaskReading("inverted"))
    opened = Sketch.masked(picture, mask)
    cut = opened.cut_after(Sketch(picture), Cut.of(region), region)
    (edited,) = studio.edit(SETTINGS, opened, cut)
    assert edited.mask.tobytes() == mask.tobytes()
    (grown,) = studio.edit(SETTINGS, opened, replace(cut, grow=8))
    assert grown.mask.getbbox() == (0, 0, 18, 44)
    files = [{"path": str(tmp_path / name), "orig_name": name} for name in ("p.png", "m.png")]
    made = served["edit"](files[0], TEXT, 0, 2, 0.0, "a blue circle", files[1], "inverted")
    assert Image.open(next(made)[1]["path"]).tobytes() == mask.tobytes()
    made.close()


def test_an_upload_is_bounded_in_bytes_and_pixels(studio, tmp_path):
    with pytest.raises(ValueError, match="max_pixels"):
        studio.open(photo(tmp_path / "wide.png", 1000, 200))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 330, 3), np.uint8)).save(tmp_path / "b.bmp")
    (tmp_path / "b.bmp").open("ab").write(bytes(1_000_000))
    with pytest.raises(ValueError, match="MB, at most 1"):
        studio.open(tmp_path / "b.bmp")


def test_an_untouched_region_gives_what_the_editor_gives_alone(studio, picture, cut):
    sketch = studio.find(SETTINGS, Sketch(picture))
    (result,) = studio.edit(SETTINGS, sketch, cut)
    alone = Editor.from_config(SETTINGS.configuration(studio.config)).edit(SETTINGS.request(picture))
    assert png(result.image) == png(alone.image) and result.record["digest"] == alone.record["digest"]
    assert np.array_equal(np.asarray(result.mask), np.asarray(sketch.mask(cut, studio.config.region)))
    assert result.record["picture"]["path"] == "my photo.png"


def test_a_corrected_region_is_edited_and_nothing_else_in_each_variant(studio, picture, painted, cut):
    results = studio.edit(replace(SETTINGS, variants=3), painted, cut)
    for result in results:
        assert result.record["mask_source"] == "drawn" and result.mask.getbbox() == (14, 14, 27, 27)
        assert changed_outside(picture, result.image, result.mask) == 0
        assert (np.asarray(picture) != np.asarray(result.image)).any()
    assert [result.record["seed"] for result in results] == [0, 1, 2]
    assert len({result.image.tobytes() for result in results}) == 3


def test_a_click_selects_an_object_or_says_why_not(studio, picture):
    assert studio.object_at(picture, (10, 10)).size == picture.size
    with pytest.raises(ValueError, match="outside"):
        studio.object_at(picture, (1000, 10))


def test_every_step_is_reported_and_watching_changes_no_pixel(studio, picture, painted, cut, monkeypatch):
    monkeypatch.setattr("regionedit.web.studio.PREVIEW_EVERY", 0)
    seen = []
    (watched,) = studio.edit(SETTINGS, painted, cut, lambda *report: seen.append(report))
    assert [report[:2] for report in seen] == [(1, 2), (2, 2)]
    assert seen[0][2][0].size == picture.size and seen[1][2] is None
    (alone,) = studio.edit(SETTINGS, painted, cut)
    assert watched.image.tobytes() == alone.image.tobytes()


def test_an_edit_that_nobody_waits_for_stops(studio, painted, cut):
    ended, steps = threading.Event(), []

    def work(report):
        try:
            preview = lambda step, *_: (steps.append(step), report(step))  # noqa: E731
            return studio.edit(replace(SETTINGS, num_inference_steps=90), painted, cut, preview)
        finally:
            ended.set()

    reports = streamed(work)
    assert next(reports) >= 1
    reports.close()
    assert ended.wait(10) and max(steps) < 90
    assert studio.lock.acquire(timeout=1)
    studio.lock.release()


def test_an_error_of_the_work_reaches_the_consumer():
    def work(report):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(streamed(work))


def test_a_download_carries_its_record_and_region_and_not_the_source(studio, picture, painted, cut, tmp_path):
    (result,) = studio.edit(replace(SETTINGS, seed=5), painted, cut)
    path = tmp_path / "down.png"
    path.write_bytes(result_png(result))
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(result.image))
    record, mask = read_result_png(path, 100_000)
    assert record == json.loads(json.dumps(result.record)) and mask.tobytes() == result.mask.tobytes()
    settings = Settings.of_record(record)
    assert (settings.instruction, settings.seed, settings.num_inference_steps) == (TEXT, 5, 2)
    (again,) = studio.edit(settings, Sketch(picture), cut, mask=mask)
    assert png(again.image) == png(result.image)
    picture.save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="contains no run.json"):
        read_result_png(tmp_path / "plain.png", 100_000)


@pytest.mark.parametrize("kind", [("png", "RGBA"), ("png", "RGB16"), ("tif", "L12")])
def test_a_download_has_what_the_file_had_and_repeats_under_any_name(studio, cut, tmp_path, kind):
    path, stored = store(tmp_path, *kind)
    picture = studio.open(path, "first name.png")
    sketch = Sketch(picture).corrected(stroke_mask(picture.size, [(8, 8)], 5), adds=True)
    (result,) = studio.edit(SETTINGS, sketch, cut)
    (tmp_path / "down.png").write_bytes(result_png(result))
    written, outside = pixels_of(open_source(tmp_path / "down.png")), np.asarray(result.mask) == 0
    assert written.dtype == stored.dtype and np.array_equal(written[outside], stored[outside])
    assert (written[~outside] != stored[~outside]).any()
    record, mask = read_result_png(tmp_path / "down.png", 100_000)
    known = [studio.open(path, "second name.png")]
    settings, again, repeated = restored(record, mask, known, studio.config.region)
    assert again.found.note == "restored from the file"
    (same,) = studio.edit(settings, again, repeated)
    assert np.array_equal(pixels_of(same.image), written)
    older = restored(record | {"schema": 1}, mask, known, studio.config.region)[1]
    assert "earlier version" in older.found.note
