"""Crop and stitch: windows around regions are edited, and pictures of any size stay unchanged outside the region."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regionedit.config import CropConfig
from regionedit.crop_and_stitch import MOST, boxes_of
from regionedit.editor import Editor
from regionedit.records import Captions, EditRequest
from regionedit.results import Patch, changed_outside, compose
from regionedit.seams import match_border

CAPTIONS = Captions("a red circle", "a blue square")
TEXT = "change the red circle to a blue square"


def region(height, width, *boxes):
    mask = torch.zeros(height, width)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


SMALL = (200, 100, 300, 160)


@pytest.mark.parametrize(
    ("height", "width", "parts", "context", "size", "windows", "margin"),
    [
        (400, 600, [SMALL], 1.5, 64, [(175, 55, 325, 205)], 0),
        (400, 600, [SMALL], 1.5, 256, [(122, 2, 378, 258)], 0),  # at least `size`
        (400, 600, [SMALL], 0, 64, [(0, 0, 600, 400)], 0),  # no context: the whole picture
        (400, 600, [SMALL], 1.5, 600, [(0, 0, 600, 400)], 0),  # a picture of that size as well
        (400, 600, [(590, 0, 600, 10)], 2, 100, [(500, 0, 600, 100)], 0),  # moved into the picture
        (50, 600, [(0, 0, 10, 50)], 2, 100, [(0, 0, 100, 50)], 0),  # cut to the picture's height
        (400, 600, [(10, 10, 20, 20), (500, 300, 501, 301)], 1.5, 100, [(0, 0, 100, 100), (450, 250, 550, 350)], 0),
        (400, 600, [(100, 100, 110, 110), (150, 100, 160, 110)], 1.5, 100, [(80, 55, 180, 155)], 0),  # one for both
        (400, 600, [SMALL], 0, 64, [(180, 60, 320, 200)], 20),  # 100 px and 20 on each side
        (400, 600, [SMALL], 1.5, 64, [(175, 55, 325, 205)], 20),  # the larger of both
        (400, 600, [SMALL], 1.5, 64, [(140, 20, 360, 240)], 60),
        (400, 600, [SMALL], 0, 256, [(122, 2, 378, 258)], 1),  # at least `size`
        (400, 600, [SMALL], 0, 64, [(0, 0, 600, 400)], 500),  # at most the picture
    ],
)
def test_windows_by_hand(height, width, parts, context, size, windows, margin):
    assert boxes_of(region(height, width, *parts), context, size, margin) == windows


def test_a_cloud_of_specks_is_one_region():
    specks = torch.zeros(900, 900)
    specks[::150, ::150] = 1
    assert int(specks.sum()) > MOST and boxes_of(specks, 1.0, 20) == [(0, 0, 751, 751)]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_edited_pixel_lies_in_exactly_one_window(data):
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    mask = torch.zeros(height, width)
    for _ in range(data.draw(st.integers(1, 5))):
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        mask[y : y + data.draw(st.integers(1, 30)), x : x + data.draw(st.integers(1, 30))] = 1
    covered = torch.zeros(height, width)
    size = data.draw(st.integers(1, 64))
    for x0, y0, x1, y1 in boxes_of(
        mask, data.draw(st.sampled_from([0, 1, 1.5, 3])), size, data.draw(st.sampled_from([0, 0, 1, 9]))
    ):
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert x1 - x0 >= min(size, width) and y1 - y0 >= min(size, height)
        covered[y0:y1, x0:x1] += 1
    assert covered.max() == 1 and (covered[mask > 0] == 1).all()


@pytest.fixture(scope="module")
def editor(tiny_edit_config):
    generator = replace(tiny_edit_config.generator, size=32, num_inference_steps=2)
    return Editor(replace(tiny_edit_config, mask_source="drawn", generator=generator, crop=CropConfig(context=1.5)))


def request(width, height, *boxes, seed=0):
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    mask = Image.new("L", (width, height))
    for box in boxes:
        mask.paste(255, box)
    return EditRequest(picture, TEXT, mask=mask, id=f"case {seed}", captions=CAPTIONS)


@pytest.mark.parametrize(
    "boxes",
    [
        [(50, 60, 70, 75)],
        [(150, 99, 151, 100)],  # one pixel, in the corner
        [(0, 0, 9, 9), (120, 70, 131, 88)],  # far apart
        [(0, 40, 151, 60)],  # from border to border
    ],
)
def test_only_the_region_changes_at_the_pictures_own_size(editor, boxes):
    asked = request(151, 100, *boxes)
    result = editor.edit(asked)
    assert result.image.size == asked.image.size
    assert changed_outside(asked.image, result.image, asked.mask) == 0
    before, after = np.asarray(asked.image), np.asarray(result.image)
    for x0, y0, x1, y1 in boxes:
        assert (before[y0:y1, x0:x1] != after[y0:y1, x0:x1]).any()


def test_a_window_is_edited_like_a_picture_of_its_own(editor):
    """Pixels outside the window do not matter, and a window of the generator's size is not resampled."""
    asked = request(151, 100, (60, 40, 70, 50))
    result = editor.edit(asked)
    box = (49, 29, 81, 61)
    part = replace(asked, image=asked.image.crop(box), mask=asked.mask.crop(box))
    alone = editor.edit(part)
    difference = np.asarray(result.image.crop(box), int) - np.asarray(alone.image, int)
    assert abs(difference).max() <= 1


def test_the_batch_changes_no_picture(editor):
    asked = [request(151, 100, (60, 40, 70, 50), seed=1), request(151, 100, (0, 0, 5, 5), (140, 90, 149, 99), seed=2)]
    together = editor.edit_batch(asked)
    for one, result in zip(asked, together, strict=True):
        difference = np.asarray(editor.edit(one).image, int) - np.asarray(result.image, int)
        assert abs(difference).max() <= 1


def test_all_windows_of_a_picture_are_generated_in_one_call(editor, monkeypatch):
    generator, calls = editor.models.generator(editor.config), []
    original = type(generator).generate
    monkeypatch.setattr(
        type(generator),
        "generate",
        lambda self, images, *rest: calls.append(len(images)) or original(self, images, *rest),
    )
    editor.edit(request(151, 100, (0, 0, 5, 5), (60, 50, 65, 55), (140, 90, 149, 99)))
    assert calls == [3]


def test_windows_of_several_calls_are_one_edit_that_can_be_watched_and_cancelled_in_any_of_them(editor):
    one_at_a_time = replace(editor.config, batch=1)
    asked = request(151, 100, (0, 0, 5, 5), (70, 30, 140, 99))
    steps, previews = [], []

    def watch(step, count, guess):
        steps.append((step, count))
        previews.append((guess() * 255).round().permute(0, 2, 3, 1).numpy())

    result = Editor(one_at_a_time, editor.models, watch).edit(asked)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [preview.shape for preview in previews] == [(1, 100, 151, 3)] * 4
    assert np.array_equal(previews[0][0, :30, 50:], np.asarray(asked.image)[:30, 50:])  # outside the windows
    assert np.array_equal(previews[-1][0, :5, :5], np.asarray(result.image)[:5, :5])

    def stop(step, count, guess):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Editor(one_at_a_time, editor.models, stop).edit(asked)


@pytest.mark.parametrize(
    ("crop", "field"),
    [
        ({"context": 0.5}, "context"),
        ({"margin": -1}, "margin"),
        ({"match": -1.0}, "match"),
        ({"sample_grow": -1}, "sample_grow"),
        ({"tone": -1}, "tone"),
    ],
)
def test_impossible_window_settings_are_refused(editor, crop, field):
    with pytest.raises(ValueError, match=rf"^crop\.{field}"):
        Editor(replace(editor.config, crop=CropConfig(**crop)))


def test_a_colour_cast_of_the_generator_disappears_at_the_border_and_stays_inside():
    source = torch.full((1, 3, 60, 60), 0.5)
    cast = source + torch.tensor([0.1, -0.05, 0.02])[None, :, None, None]
    mask = torch.zeros(1, 1, 60, 60)
    mask[..., 20:40, :] = 1
    matched = match_border(cast, source, mask, 4.0)
    # Along a straight border the solution of Laplace's equation is linear: from the full difference to 0 in 5 steps.
    shares = (matched - source)[0, :, 19:26, 30] / (cast - source)[0, :, 19:26, 30]
    assert torch.allclose(shares[:, 1:], torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0, 1.0]).expand(3, 6), atol=1e-4)
    assert torch.equal(match_border(cast, source, mask, 0), cast)
    everything = torch.ones_like(mask)
    assert torch.equal(match_border(cast, source, everything, 4.0), cast)


def test_texture_that_the_generator_continues_leaves_no_step():
    """The step at the border equals the edited picture's own gradient there, pixel by pixel."""
    rng = torch.Generator().manual_seed(1)
    texture = torch.rand(1, 3, 40, 40, generator=rng) * 0.5 + 0.25
    source = (texture + 0.1 * torch.rand(1, 3, 40, 40, generator=rng)).clamp(0, 1)
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 10:30, 10:30] = 1
    matched = match_border(texture, source, mask, 40.0)
    inside, outside = (matched[..., 10, 15:25], source[..., 9, 15:25])
    own = texture[..., 10, 15:25] - texture[..., 9, 15:25]
    assert (inside - outside - own).abs().mean() < 0.5 * (texture[..., 10, 15:25] - outside - own).abs().mean()


def test_the_sources_content_inside_the_region_is_not_copied():
    source, edited = torch.full((1, 3, 40, 40), 0.4), torch.full((1, 3, 40, 40), 0.4)
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 10:30, 10:30] = 1
    source[..., 10:30, 10:30] = 0.9
    assert torch.equal(match_border(edited, source, mask, 3.0), edited)


def test_a_patch_is_matched_as_the_whole_picture_would_be():
    rng = torch.Generator().manual_seed(0)
    source = Image.fromarray((torch.rand(60, 80, 3, generator=rng) * 255).byte().numpy())
    edited = torch.rand(3, 60, 80, generator=rng)
    mask = Image.new("L", (80, 60))
    mask.paste(255, (30, 20, 50, 40))
    whole = compose(source, [Patch((0, 0, 80, 60), edited)], mask, match=2.0)
    part = compose(source, [Patch((20, 10, 60, 50), edited[:, 10:50, 20:60])], mask, match=2.0)
    assert np.array_equal(np.asarray(whole), np.asarray(part))
    assert changed_outside(source, whole, mask) == 0
