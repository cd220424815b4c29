"""Our sampling loop for InstructPix2Pix: equal to the library's with all options off, and each option of FoI."""

import pytest
import torch

from regionedit.attention import Recorder, attached
from regionedit.config import InstructPix2PixConfig
from regionedit.generators.three_way_sampling import ThreeWaySampling
from regionedit.records import EditRequest, Instruction, Region
from tests.generator_inputs import box, pictures
from tests.generator_inputs import edited as edited_by

LOUD = 20.0  # a strength at which the random weights' attention moves a picture visibly


@pytest.fixture
def make(tiny_generator):
    settings = {"num_inference_steps": 4, "guidance_scale": 7.5, "attention_resolution": 4}
    return lambda **changes: tiny_generator("instruct_pix2pix", **settings | changes)


@pytest.fixture
def library(make):
    """A function that calls the library's pipeline."""

    def call(images, texts, seeds, guidance_scale=7.5, image_guidance_scale=1.5, **settings):
        pipeline = make().pipeline
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt=texts,
            image=images,
            num_inference_steps=4,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
            **settings,
        ).images

    return call


def half(count=2, height=32, width=32, right=True):
    columns = (width // 2, width) if right else (0, width // 2)
    return box(count, height, width, rows=(0, height), columns=columns)


def ones(count=2, height=32, width=32):
    return torch.ones(count, 1, height, width)


def unet_inputs_of(generator, mask):
    """The U-Net's inputs while it edits: (input, timestep) for each call."""
    unet_inputs = []
    record = lambda module, inputs: unet_inputs.append((inputs[0], float(inputs[1])))  # noqa: E731
    hook = generator.pipeline.unet.register_forward_pre_hook(record)
    try:
        generator.propose(pictures(), mask, TEXTS, SEEDS)
    finally:
        hook.remove()
    return unet_inputs


def own_noise():
    return torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])


TEXTS, SEEDS = ["make the circle blue", "remove the square"], [3, 4]


@pytest.mark.parametrize(
    ("text", "picture", "size"), [(7.5, 1.5, (32, 32)), (7.5, 1.0, (32, 48)), (1.0, 1.5, (32, 32))]
)
def test_with_everything_off_it_is_the_librarys_pipeline(make, library, text, picture, size):
    images = pictures(2, *size)
    expected = library(images, TEXTS, SEEDS, guidance_scale=text, image_guidance_scale=picture)
    found = make(guidance_scale=text, image_guidance_scale=picture, size=0).propose(
        images, ones(2, *size), TEXTS, SEEDS
    )
    assert (found - expected).abs().max() <= 1e-5


def test_a_truncated_instruction_warns(make):
    with pytest.warns(UserWarning, match="instruction of 42 tokens cut to the generator's 32"):
        make(num_inference_steps=1).propose(pictures(1), ones(1), ["make the " * 20], [1])


def test_modulation_that_no_step_reaches_changes_no_bit(make):
    plain = make().propose(pictures(), half(), TEXTS, SEEDS)
    for idle in ({"mask_steps": 4}, {"modulation_until": 0.0}, {"modulation_until": 0.25}):
        assert torch.equal(make(modulation=True, **idle).propose(pictures(), half(), TEXTS, SEEDS), plain)
    assert not torch.equal(make(modulation=True).propose(pictures(), half(), TEXTS, SEEDS), plain)


def test_start_skips_steps_and_noises_the_source(make):
    generator = make(num_inference_steps=10, strength=0.8)
    unet_inputs = unet_inputs_of(generator, ones())
    scheduler = generator.pipeline.scheduler
    assert [time for _, time in unet_inputs] == scheduler.timesteps[2:].tolist() and len(unet_inputs) == 8
    encoded = generator.pipeline.vae.encode(pictures() * 2 - 1).latent_dist.mode()
    sigma = scheduler.sigmas[2]
    noised = encoded * generator.pipeline.vae.config.scaling_factor + sigma * own_noise()
    torch.testing.assert_close(unet_inputs[0][0][:2, :4] * (sigma**2 + 1) ** 0.5, noised, atol=1e-4, rtol=1e-4)


def test_equation_8_by_hand(make):
    """A latent cell is inside if any of its 4 x 4 pixels is, so that thin strokes are kept."""
    mask_B1hw = torch.zeros(1, 1, 32, 32)
    mask_B1hw[..., 5, 9] = mask_B1hw[..., 31, :] = 1
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 1, 2] = expected[..., 7, :] = 1
    assert torch.equal(make()._latent_masks(mask_B1hw), expected)


def test_disentangling_by_a_mask_of_ones_changes_no_bit(make):
    plain = make().propose(pictures(), ones(), TEXTS, SEEDS)
    every = make(disentangle=True, disentangle_until=1.0).propose(pictures(), ones(), TEXTS, SEEDS)
    assert torch.equal(plain, every)


def test_disentangling_by_a_mask_of_zeros_is_no_text_guidance(make, library):
    """With an empty instruction, the two branches with the picture agree, so that the text guidance s_T vanishes."""
    generator = make(disentangle=True, disentangle_until=1.0)
    found = generator.propose(pictures(), torch.zeros(2, 1, 32, 32), TEXTS, SEEDS)
    assert (found - library(pictures(), ["", ""], SEEDS)).abs().max() <= 1e-5
    assert (found - generator.propose(pictures(), ones(), TEXTS, SEEDS)).abs().max() > 1e-2


def test_equation_9_by_hand(make):
    sampling = ThreeWaySampling(make().pipeline, make().config, pictures(), TEXTS, SEEDS)
    predicted = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = half(2, 8, 8)
    both, picture, neither = predicted[:2], predicted[2:4], predicted[4:]
    expected = neither + 1.5 * (picture - neither) + 7.5 * (both - picture) * mask
    torch.testing.assert_close(sampling.guide(predicted, mask), expected, atol=1e-5, rtol=1e-5)


def test_disentangling_ends_when_it_should(make, monkeypatch):
    given = []
    plain = ThreeWaySampling.guide
    monkeypatch.setattr(
        ThreeWaySampling, "guide", lambda self, p, mask=None: given.append(mask is not None) or plain(self, p, mask)
    )
    make(num_inference_steps=10, strength=0.8, disentangle=True).propose(pictures(), half(), TEXTS, SEEDS)
    assert given == [True] * 6 + [False] * 2


@pytest.mark.parametrize("start", [1.0, 0.5])
def test_latent_blending_keeps_the_sources_latent_outside_at_every_step(make, monkeypatch, start):
    generator, sampled = make(latent_blend=True, strength=start), []
    decode = ThreeWaySampling.decode
    monkeypatch.setattr(ThreeWaySampling, "decode", lambda *given: sampled.append(given[0]) or decode(*given))
    unet_inputs = unet_inputs_of(generator, half())
    outside = (half(2, 8, 8) == 0).expand(-1, 4, -1, -1)
    source, latent = sampled[0].source_BCyx, sampled[0].latent_BCyx
    assert torch.equal(latent[outside], source[outside]) and not torch.equal(latent[~outside], source[~outside])
    sigmas = generator.pipeline.scheduler.sigmas[-len(unet_inputs) - 1 : -1]
    for (given, _), sigma in zip(unet_inputs, sigmas, strict=True):
        expected = (source + sigma * own_noise()) / (sigma**2 + 1) ** 0.5
        torch.testing.assert_close(given[:2, :4][outside], expected[outside], atol=1e-4, rtol=1e-4)


def two(strength=1.0):
    first, second = Instruction("make the circle blue", strength), Instruction("remove the square")
    return EditRequest(None, (first, second), id="two")


ONE = EditRequest(None, "add a star", id="one")


def test_each_sub_instruction_has_its_own_region(make):
    generator, images, mask = make(modulation=True), pictures(1), ones(1)

    def edited(*masks, strength=1.0):
        region = Region(mask, mask, None if not masks else torch.cat(masks, 1))
        return edited_by(generator, images, region, [two(strength)], [None], [1])

    left, right = half(1, right=False), half(1)
    assert torch.equal(edited(), edited(mask, mask)), "one mask applies to all instructions"
    assert torch.equal(edited(left, right), edited(left * 0.2, right)), "masks are binarised"
    different = [edited(left, right), edited(right, left), edited()]
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(different, different[1:] + different[:1], strict=True))
    assert (edited(mask, left) - edited(mask, right)).abs().max() > 1e-5, "only the second mask changes"
    assert (edited(strength=LOUD) - edited()).abs().max() > 1e-4
    with pytest.raises(ValueError, match="region: 1 masks for 2 sub-instructions"):
        edited(left)


EVERYTHING_ON = {"strength": 0.75, "latent_blend": True, "modulation": True, "disentangle": True, "mask_steps": 0}


def test_with_everything_on_the_batch_changes_nothing(make):
    """Mixes requests with one and with two sub-instructions, and includes the noise of each step."""
    generator, images, mask = make(**EVERYTHING_ON), pictures(3), half(3)
    requests, seeds = [two(), ONE, two(LOUD)], [5, 6, 7]
    own = torch.cat([half(3), half(3, right=False)], 1)
    own[1, 1] = 0  # the second request has one sub-instruction
    together = edited_by(generator, images, Region(mask, mask, own), requests, [None] * 3, seeds)
    for b in range(3):
        part = slice(b, b + 1)
        region = Region(mask[part], mask[part], own[part, : len(requests[b].instructions)])
        alone = edited_by(generator, images[part], region, requests[part], [None], seeds[part])
        assert (alone - together[part]).abs().max() <= 1 / 255
    assert torch.equal(together[mask.expand_as(together) == 0], images[mask.expand_as(together) == 0])
    other = edited_by(generator, images, Region(mask, mask, own), requests, [None] * 3, [8, 9, 10])
    assert (other - together).abs().max() > 1 / 255


def test_every_part_changes_the_picture(make):
    parts = ({}, *({part: EVERYTHING_ON[part]} for part in ("strength", "latent_blend", "modulation", "disentangle")))
    made = [make(**part).propose(pictures(1), half(1), TEXTS[:1], [3]) for part in parts]
    for a in range(len(made)):
        assert all((made[a] - made[b]).abs().max() > 1e-3 for b in range(a))


@pytest.mark.parametrize("steps", [1, 2])
def test_what_is_attended_to_is_what_the_librarys_first_steps_look_at(make, library, steps):
    generator, images = make(mask_steps=steps), pictures(2, 32, 48)
    requests = [two(), ONE]
    recorder = Recorder(2, (8, 12), (4, 6))

    class EnoughError(Exception):
        pass

    def stop(pipeline, step, timestep, values):
        if step == steps - 1:
            raise EnoughError
        return values

    with pytest.raises(EnoughError), attached(generator.pipeline.unet, recorder):
        library(images, [request.instruction for request in requests], SEEDS, callback_on_step_end=stop)
    wide = make(mask_steps=steps, attention_resolution=6)
    maps = wide.attend(images, requests, SEEDS)
    expected = recorder.maps_BNrc()
    places = [[3, 8], [3]]  # start make the CIRCLE blue and remove the SQUARE end; start add a STAR end
    for b, row in enumerate(places):
        for k, place in enumerate(row):
            torch.testing.assert_close(maps[b, k], expected[b, place], atol=1e-5, rtol=1e-4)
    assert maps.shape == (2, 2, 4, 6) and not maps[1, 1].any()


def test_attention_that_cannot_be_read_is_explained(make):
    with pytest.raises(ValueError, match="generator.attention_resolution: .*2x2.*it has: 4x4"):
        make(attention_resolution=0).attend(pictures(1), [ONE], [1])
    for steps in (0, 5):
        with pytest.raises(ValueError, match=f"generator.mask_steps: {steps} is outside 1 to 4"):
            make(mask_steps=steps).attend(pictures(1), [ONE], [1])
    with pytest.raises(ValueError, match="keyword: 'dog' is no word"):
        make().attend(pictures(1), [EditRequest(None, [Instruction("add a star", keyword="dog")])], [1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strength": 0.0}, "generator.strength: 0.0"),
        ({"strength": 1.2}, "generator.strength: 1.2"),
        ({"modulation_until": -0.1}, "generator.modulation_until"),
        ({"disentangle_until": 75.0}, "generator.disentangle_until: 75.0"),
        ({"mask_steps": -1}, "generator.mask_steps"),
        ({"attention_resolution": -16}, "generator.attention_resolution"),
        ({"modulation": True, "guidance_scale": 1.0}, "generator.guidance_scale: 1.0"),
        ({"disentangle": True, "image_guidance_scale": 0.5}, "generator.guidance_scale: .*image_guidance_scale 0.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        InstructPix2PixConfig(**{"guidance_scale": 7.5, **changes})
