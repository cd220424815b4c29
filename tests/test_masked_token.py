"""The masked-token generator: the library's picture for one sample, and tokens that stay where nothing is asked."""

import math
import sys
from dataclasses import replace

import known_edits
import numpy as np
import pytest
import torch

from regionedit.command_line import load_config
from regionedit.config import EditConfig, MaskedTokenConfig
from regionedit.generators import load_generator
from regionedit.generators.masked_token import pipeline_class
from regionedit.images import to_pictures
from regionedit.masks import dilate
from regionedit.microworld.pixel_check import label
from regionedit.microworld.scene import COLORS
from tests.generator_inputs import box, pictures
from tests.tiny_models import write_masked_token

TEXTS, SEEDS = ["a red circle", "a blue square"], [3, 4]


@pytest.fixture
def make(tiny_generator):
    return lambda **changes: tiny_generator("masked_token", **{"num_inference_steps": 4} | changes)


def part(top, bottom, left, right, count=1):
    return box(count, rows=(top, bottom), columns=(left, right))


def token_maps(generator, images, mask, texts=TEXTS, seeds=SEEDS):
    """The source's tokens, and those that the transformer was shown at each step and the last ones."""
    shown = []
    hook = generator.transformer.register_forward_pre_hook(
        lambda module, inputs: shown.append(inputs[0][: len(images)].clone())
    )
    try:
        last = generator._repredict(images, mask, texts, seeds)
    finally:
        hook.remove()
    return generator._encode(images), [*shown, last]


@pytest.mark.parametrize("downsample", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_one_picture_is_the_librarys_pipelines(tmp_path, guidance, downsample):
    folder = write_masked_token(tmp_path, seed=1, downsample=downsample)
    config = MaskedTokenConfig(
        path=str(folder), size=0, num_inference_steps=5, guidance_scale=guidance, temperature=1.5
    )
    generator = load_generator(config)
    images, mask = pictures(1, 32, 48), torch.zeros(1, 1, 32, 48)
    mask[..., 8:28, 12:40] = 1  # whole tokens: the library takes one pixel of each, not any
    generator.pipeline.set_progress_bar_config(disable=True)
    for seed in (1, 2):
        expected = generator.pipeline(
            "a red circle", images, mask, num_inference_steps=5, guidance_scale=guidance, temperature=(1.5, 0),
            generator=torch.Generator().manual_seed(seed), output_type="pt",
        ).images  # fmt: skip
        found = generator.propose(images, mask, ["a red circle"], [seed])
        assert (found - expected).abs().max() <= 1e-6
    assert generator.multiple == (8 if downsample else 4)


@pytest.mark.parametrize("temperature", [0.0, 2.0, 50.0])
def test_tokens_outside_the_region_stay_bit_equal_at_every_step(make, temperature):
    """Also for single pixels at the border, everything and nothing; and at a temperature at which the library's
    scheduler masks known tokens anew."""
    places = [(8, 20, 4, 24), (0, 4, 0, 32), (0, 1, 0, 1), (31, 32, 31, 32), (0, 32, 0, 32), (0, 0, 0, 0)]
    generator, images = make(temperature=temperature, num_inference_steps=6), pictures(6)
    mask = torch.cat([part(*place) for place in places])
    source, maps = token_maps(generator, images, mask, [*TEXTS, ""] * 2, range(6))
    inside = torch.nn.functional.max_pool2d(mask, 4)[:, 0] > 0
    assert len(maps) == 7
    for tokens in maps:
        assert torch.equal(tokens[~inside], source[~inside])
    assert (maps[0][inside] == generator.mask_token).all()
    hidden = [[int((tokens[i] == generator.mask_token).sum()) for tokens in maps] for i in range(6)]
    assert [counts[0] for counts in hidden] == [3 * 5, 8, 1, 1, 64, 0]
    for counts in hidden:
        assert counts == sorted(counts, reverse=True) and counts[-1] == 0
    assert not torch.equal(maps[-1][inside], source[inside])


def test_the_linear_schedule_by_hand(make):
    """floor(tokens in the picture * share in the region * (1 - step / steps)), at least one until the last step."""
    generator, mask = make(num_inference_steps=4), torch.cat([part(0, 12, 0, 20), part(4, 8, 4, 8)])
    _, maps = token_maps(generator, pictures(), mask)
    hidden = [[int((tokens[i] == generator.mask_token).sum()) for tokens in maps] for i in range(2)]
    assert hidden[0] == [15, *(math.floor(64 * 15 / 64 * (1 - step / 4)) for step in (1, 2, 3)), 0]
    assert hidden[1] == [1, 1, 1, 1, 0]


def test_a_token_is_edited_when_any_of_its_pixels_is(make):
    generator = make()
    one_pixel = part(13, 14, 18, 19)
    assert generator._edited_tokens(one_pixel).nonzero().tolist() == [[0, 3, 4]]
    assert not generator._edited_tokens(0.4 * one_pixel).any()


def test_each_distinct_text_is_encoded_once_and_both_branches_go_together(make):
    generator, texts, tokens = make(num_inference_steps=2, guidance_scale=3.0), [], []
    hooks = [
        generator.text_encoder.register_forward_pre_hook(lambda module, inputs: texts.append(len(inputs[0]))),
        generator.transformer.register_forward_pre_hook(lambda module, inputs: tokens.append(len(inputs[0]))),
    ]
    try:
        generator.propose(pictures(3), box(3), ["a red circle"] * 2 + ["a square"], [1, 2, 3])
        make(num_inference_steps=2, guidance_scale=1.0).propose(pictures(), box(), TEXTS, SEEDS)
    finally:
        for hook in hooks:
            hook.remove()
    assert texts == [3, 2] and tokens == [6, 6, 2, 2]


def test_settings_that_mean_nothing_are_refused(make):
    for changes, field in (
        ({"num_inference_steps": 0}, "generator.num_inference_steps"),
        ({"temperature": -1.0}, "generator.temperature"),
    ):
        with pytest.raises(ValueError, match=f"^{field}: "):
            make(**changes)


def test_a_library_without_the_deprecated_pipeline_is_refused(monkeypatch):
    assert pipeline_class().__name__ == "AmusedInpaintPipeline"
    monkeypatch.setattr(sys.modules["diffusers"], "AmusedInpaintPipeline", None, raising=False)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"^generator.name: masked_token needs diffusers' AmusedInpaintPipeline"):
        pipeline_class()


@pytest.mark.microworld
def test_the_shipped_model_paints_the_colour_that_the_caption_names():
    """Behind the true mask of recolourings, share of the thing in the colour asked for: of a shape it paints little."""
    known = known_edits.known_edits("validation", 5, range(16), ("recolour",))
    mask = dilate((known.truth_B1HW > 0.1).float(), 2)
    settings = load_config(EditConfig, "configs/edit_masked_token_microworld.yaml", []).generator
    generator = load_generator(replace(settings, num_inference_steps=4))
    asked = [list(COLORS).index(edit.changed.color) for edit in known.edits]

    def share(captions):
        shown = to_pictures(generator.propose(known.source_BCHW, mask, captions, range(16)))
        things = known.truth_B1HW[:, 0].numpy() > 0.5
        return np.mean([(label(np.asarray(p)) == c)[t].mean() for p, c, t in zip(shown, asked, things, strict=True)])

    painted = share(known.target_captions)
    assert painted >= 0.1 and painted >= 3 * share(known.source_captions)
