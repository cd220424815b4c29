"""A complete edit: pixels outside the mask and sizes are kept; batches and failed edits do not affect other edits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from regionedit.config import CropConfig, RegionConfig
from regionedit.device import pick_device
from regionedit.editor import Editor
from regionedit.images import open_picture, upright_rgb
from regionedit.records import Captions, EditFailure, EditRequest, EditResult

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]
CAPTIONS = Captions("a red circle", "a blue circle")


@pytest.fixture(scope="module")
def editor(tiny_edit_config) -> Editor:
    return Editor.from_config(tiny_edit_config)


def with_source(editor: Editor, mask_source: str) -> Editor:
    return Editor(replace(editor.config, mask_source=mask_source), editor.models)


def photo(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture with smooth gradients and grain, as from a camera."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(6 * x * a + 4 * y * b) for a, b in rng.uniform(0.3, 2, (3, 2))]
    pixels = (np.stack(waves, -1) * 80 + 128 + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def corner(width: int, height: int, value: int = 255) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(value, (0, 0, max(1, width // 3), max(1, height // 3)))
    return mask


def untouched(result: EditResult, source: Image.Image) -> bool:
    outside = np.asarray(result.mask) == 0
    return np.array_equal(np.asarray(result.image)[outside], np.asarray(upright_rgb(source))[outside])


@given(width=st.integers(1, 70), height=st.integers(1, 70), mode=st.sampled_from(MODES), soft=st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pixels_outside_the_mask_never_change(editor, width, height, mode, soft):
    picture = photo(width, height, mode)
    mask = corner(width, height)
    if soft:
        mask = Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width), dtype=np.uint8))
    result = editor.edit(EditRequest(picture, "x", captions=CAPTIONS, mask=mask))
    assert result.image.size == picture.size and result.image.mode == "RGB"
    assert np.array_equal(np.asarray(result.mask), np.asarray(mask)) and untouched(result, picture)


@pytest.mark.parametrize("name", ["learned", "clip_similarity", "everything", "centre_box"])
def test_every_mask_source_leaves_an_odd_photograph_unchanged_outside_its_region(name, editor):
    picture = photo(517, 389)
    result = with_source(editor, name).edit(EditRequest(picture, "make the red circle blue"))
    assert result.image.size == (517, 389) and result.probability.shape == (389, 517)
    assert untouched(result, picture)
    assert result.record["mask_source"] == name and result.record["captions"]["from"] == "microworld"
    if name in ("centre_box", "everything"):
        inside = np.asarray(result.mask) == 255
        assert (np.asarray(result.image)[inside] != np.asarray(picture)[inside]).any()


def test_a_feathered_mask_still_touches_nothing_outside(tiny_edit_config):
    config = replace(
        tiny_edit_config, region=replace(tiny_edit_config.region, feather=5.0), mask_source="clip_similarity"
    )
    picture = photo(90, 61)
    result = Editor.from_config(config).edit(EditRequest(picture, "x", captions=CAPTIONS))
    assert 0 < result.share < 1 and len(np.unique(np.asarray(result.mask))) > 2 and untouched(result, picture)


def test_the_noise_depends_on_the_seed_alone(editor):
    requests = [
        EditRequest(photo(48, 36, seed=i), "x", captions=CAPTIONS, seed=3, mask=corner(48, 36), id=f"case{i}")
        for i in range(3)
    ]
    together = editor.edit_batch(requests)
    for request, result in zip(requests, together, strict=True):
        alone = editor.edit(request)
        apart = np.abs(np.asarray(alone.image).astype(int) - np.asarray(result.image).astype(int))
        assert apart.max() <= 1 and result.id == request.id
    first = editor.edit(requests[0])
    renamed = requests[0].image.copy()
    renamed.info["path"] = "another name.png"
    for same in (requests[0], replace(requests[0], id="b", image=renamed), replace(requests[0], seed=3 - 2**63)):
        assert np.array_equal(np.asarray(editor.edit(same).image), np.asarray(first.image))
    assert editor.digest(replace(requests[0], id="b")) == first.record["digest"]
    for seed in (1, -3, 10**30):
        other = editor.edit(replace(requests[0], seed=seed))
        assert (np.asarray(other.image) != np.asarray(first.image)).any()


def test_a_batch_can_mix_sizes_and_failures(editor):
    requests = [
        EditRequest(photo(30, 20), "x", captions=CAPTIONS, mask=corner(30, 20), id="good"),
        EditRequest(photo(30, 20), "x", captions=CAPTIONS, mask=corner(9, 9), id="wrong mask"),
        EditRequest(photo(20, 30), "not in the grammar", mask=corner(20, 30), id="no words"),
        EditRequest(photo(20, 30), "x", captions=CAPTIONS, click=(30, 3), id="click"),
        EditRequest(photo(20, 30), "x", captions=CAPTIONS, box=(0, 0, 5, 5), id="box"),
    ]
    outcomes = editor.edit_batch(requests)
    assert [o.id for o in outcomes] == [r.id for r in requests]
    assert [isinstance(o, EditFailure) for o in outcomes] == [False, True, True, True, False]
    assert "mask: 9x9" in outcomes[1].reason and "30x20" in outcomes[1].reason
    assert "grammar" in outcomes[2].reason and "click" in outcomes[3].reason
    assert editor.edit_batch([]) == []
    with pytest.raises(ValueError, match="mask: 9x9"):
        editor.edit(requests[1])


def test_an_empty_mask_returns_the_source_and_says_so(editor, monkeypatch):
    monkeypatch.setattr(editor.models.generator(editor.config), "repaint", lambda *_: pytest.fail("generated"))
    picture = photo(33, 21)
    result = editor.edit(EditRequest(picture, "x", captions=CAPTIONS, mask=Image.new("L", (33, 21))))
    assert np.array_equal(np.asarray(result.image), np.asarray(picture))
    assert result.share == 0 and "empty" in result.note and "empty" in result.record["note"]


def test_given_and_unneeded_captions_are_never_computed(editor, monkeypatch):
    monkeypatch.setattr(editor.models.describer(editor.config), "describe", lambda *_: pytest.fail("described"))
    request = EditRequest(photo(20, 20), "x", captions=Captions("", "a blue circle"))
    result = with_source(editor, "everything").edit(request)
    assert result.captions.target == "a blue circle" and result.record["captions"]["from"] == "given"
    monkeypatch.setattr(type(editor.models.generator(editor.config)), "needs", "instruction")
    result = with_source(editor, "everything").edit(EditRequest(photo(20, 20), "make it nice"))
    assert result.captions is None and result.record["captions"] is None


def test_half_given_captions_are_completed(editor):
    request = EditRequest(photo(64, 64), "make the red circle blue", captions=Captions("", "my own words"))
    result = with_source(editor, "clip_similarity").edit(request)
    assert result.captions.target == "my own words" and "red circle" in result.captions.source


@pytest.mark.parametrize("source", ["clip_similarity", "box_search"])
def test_the_record_names_the_clip_that_found_the_region(editor, source):
    request = EditRequest(photo(64, 64), "make the red circle blue")
    assert with_source(editor, source).edit(request).record["models"]["clip"]["sha256"]


def test_the_record_repeats_the_edit(editor, tmp_path):
    request = EditRequest(photo(50, 40), "make the red circle blue", seed=5, id="case")
    result = with_source(editor, "everything").edit(request)
    result.save(tmp_path / "x")
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert names == {"result.png", "mask.png", "probability.png", "overlay.png", "run.json"}
    record = json.loads((tmp_path / "x" / "run.json").read_text())
    assert record["seed"] == 5 and record["instructions"][0]["text"] == "make the red circle blue"
    assert record["settings"]["generator"]["num_inference_steps"] == 2 and record["models"]["generator"]["sha256"]
    assert set(record["seconds"]) == {"captions", "region", "generate", "composite"}
    assert torch.__version__.startswith(record["packages"]["torch"])
    again = EditRequest(
        request.image,
        tuple(i["text"] for i in record["instructions"]),
        seed=record["seed"],
        id=record["id"],
        captions=Captions(record["captions"]["source"], record["captions"]["target"]),
    )
    repeated = with_source(editor, record["mask_source"]).edit(again)
    assert np.array_equal(np.asarray(repeated.image), np.asarray(open_picture(tmp_path / "x" / "result.png")))
    assert np.array_equal(np.asarray(repeated.mask), np.asarray(Image.open(tmp_path / "x" / "mask.png")))


def test_the_digest_depends_on_what_changes_the_result(editor, tiny_edit_config):
    base = EditRequest(photo(20, 20), "x", captions=CAPTIONS, mask=corner(20, 20))
    digest = editor.digest(base)
    assert digest == editor.edit(base).record["digest"] == editor.digest(replace(base))
    changed = [replace(base, seed=1), replace(base, mask=corner(20, 20, 200)), replace(base, instructions="y")]
    assert digest not in [editor.digest(request) for request in changed]
    for change in (
        {"generator": replace(tiny_edit_config.generator, num_inference_steps=3)},
        {"region": replace(tiny_edit_config.region, grow_if_cut=6)},
        {"crop": CropConfig(register=True)},
        {"crop": CropConfig(sample_grow=3)},
        {"crop": CropConfig(tone=16)},
        {"layers": True},
    ):
        assert Editor(replace(tiny_edit_config, **change)).digest(base) != digest, change
    assert Editor(replace(tiny_edit_config, batch=2)).digest(base) == digest


def test_unknown_names_fail_before_anything_is_loaded(tiny_edit_config):
    for changes, says in (
        ({"mask_source": "lerned"}, "mask_source"),
        ({"describe": replace(tiny_edit_config.describe, name="qwen")}, "describe.name"),
        ({"generator": replace(tiny_edit_config.generator, name="flux")}, "generator.name"),
        ({"device": "cuda:77"}, "device"),
    ):
        with pytest.raises(ValueError, match=says):
            Editor.from_config(replace(tiny_edit_config, **changes))
    with pytest.raises(ValueError, match="device"):
        pick_device("gpu")


def test_a_drawn_mask_needs_no_trained_region(tiny_edit_config):
    editor = Editor.from_config(replace(tiny_edit_config, region=RegionConfig(checkpoint=None)))
    request = EditRequest(photo(20, 20), "x", captions=CAPTIONS)
    assert editor.edit(replace(request, box=(2, 2, 9, 9))).share == pytest.approx(49 / 400)
    assert {kind for kind, *_ in editor.models._loaded} == {"mask_source", "generator"}
    with pytest.raises(ValueError, match="region.checkpoint.*drawn"):
        editor.edit(request)
    with pytest.raises(ValueError, match="region.checkpoint"):
        editor.edit_batch([request])


def test_rotated_and_transparent_pictures_say_what_was_done(editor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(40, 20).save(tmp_path / "r.jpg", exif=exif)
    result = editor.edit(EditRequest(Image.open(tmp_path / "r.jpg"), "x", captions=CAPTIONS, mask=corner(20, 40)))
    assert result.image.size == (20, 40) and "upright" in result.note
    clear = Image.new("RGBA", (16, 16), (10, 20, 30, 0))
    result = editor.edit(EditRequest(clear, "x", captions=CAPTIONS, mask=corner(16, 16)))
    assert "white" in result.note and result.record["picture"]["notes"]
