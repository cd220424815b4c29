"""The contract of every generator, and the paper's appendix A against diffusers' own pipeline and scheduler."""

import json
import math

import pytest
import torch

from regionedit import generators
from regionedit.config import GENERATOR_CONFIGS, StableDiffusionConfig
from regionedit.generators import (
    GENERATORS,
    load_generator,
    noise_seed,
    require_generator,
    require_gradient,
)
from regionedit.generators.inpaint_pipelines import INPAINT_PIPELINES
from regionedit.generators.noise import clean_and_noise, noised, own_noise, trailing_schedule
from regionedit.records import Captions, EditRequest, Region
from tests.generator_inputs import box, decoded, pictures
from tests.generator_inputs import edited as edited_by
from tests.tiny_models import write_inpaint

NAMES = sorted(set(GENERATORS) - {"diffusers_inpaint"} | set(INPAINT_PIPELINES))
TEXTS = ["a red circle", "make the big blue square to the left of the ring green", "a ring"]
pytestmark = pytest.mark.usefixtures("small_megapixel")


@pytest.fixture
def make(tiny_inpaint_dir):
    """Stable Diffusion, loaded anew, since tests hook into its networks."""
    return lambda **changes: load_generator(
        StableDiffusionConfig(path=str(tiny_inpaint_dir), **{"size": 32, "num_inference_steps": 2} | changes)
    )


@pytest.mark.parametrize("name", NAMES)
def test_size_is_kept_and_outside_the_mask_nothing_changes(tiny_generator, name):
    images, mask = pictures(2, 37, 51), box(2, 37, 51)
    mask[1] = 0
    requests = [EditRequest(image=None, instructions="remove the circle")] * 2
    captions = [Captions("a circle", "a ring")] * 2
    edited = edited_by(tiny_generator(name), images, Region(mask, mask), requests, captions, [1, 2])
    assert edited.shape == images.shape and edited.dtype == images.dtype
    assert edited.min() >= 0 and edited.max() <= 1 and edited.isfinite().all()
    outside = (mask == 0).expand_as(images)
    assert torch.equal(edited[outside], images[outside])
    assert not torch.equal(edited[~outside], images[~outside])


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_does_not_depend_on_its_batch_but_on_text_seed_and_mask(tiny_generator, name):
    generator, images, mask = tiny_generator(name), pictures(3), box(3, rows=(4, 28), columns=(4, 16))
    mask[1] = 0  # an unedited picture between two edited ones
    mask[2] = mask[2].flip(-1)
    seeds = [11, 12, 13]
    together = generator.propose(images, mask.requires_grad_(), TEXTS, seeds)
    assert not together.requires_grad and torch.is_grad_enabled()
    alone = [generator.propose(images[r], mask[r], TEXTS[r], seeds[r]) for r in (slice(0, 1), slice(2, 3))]
    off = max((together[r] - one[0]).abs().max() for r, one in zip((0, 2), alone, strict=True))
    assert off <= 1 / 255
    if name in INPAINT_PIPELINES:
        assert torch.equal(together[1], images[1])
    others = {
        "text": generator.propose(images[:1], mask[:1], [TEXTS[1]], seeds[:1]),
        "seed": generator.propose(images[:1], mask[:1], TEXTS[:1], [21]),
        "mask": generator.propose(images[:1], mask[:1].flip(-1), TEXTS[:1], seeds[:1]),
    }
    if name == "instruct_pix2pix":  # here the region acts in compositing
        assert torch.equal(others.pop("mask"), alone[0])
    for what, other in others.items():
        assert (other - alone[0]).abs().max() > max(10 * off, 1e-4), what


@pytest.mark.parametrize("name", NAMES)
def test_every_step_shows_a_preview_and_an_exception_leaves_no_trace(tiny_generator, name):
    """The mask covers everything: previews show the generated picture, before the source is put back outside."""
    generator, reports = tiny_generator(name, **{"strength": 1.0} if name in INPAINT_PIPELINES else {}), []
    images = pictures(2, 32, 32 if name == "next_scale" else 48)
    everything = torch.ones_like(images[:, :1])

    def watch(step, steps, preview):
        reports.append((step, steps, preview()))

    def stop(step, steps, preview):
        if step == 2:
            raise KeyboardInterrupt

    with torch.no_grad():
        made = generator.generate(images, everything, TEXTS[:2], [1, 2], watch)
        with pytest.raises(KeyboardInterrupt):
            generator.generate(images, everything, TEXTS[1:], [3, 4], stop)
        again = generator.generate(images, everything, TEXTS[:2], [1, 2])
    steps = {"next_scale": 4, "QwenImageEditInpaintPipeline": 6}.get(name, 3)  # that class takes single pictures
    assert [(step, of) for step, of, _ in reports] == [(step, steps) for step in range(1, steps + 1)]
    for _, _, preview in reports:
        assert preview.shape == images.shape and preview.min() >= 0 and preview.max() <= 1
    assert (reports[-1][2] - made).abs().max() < 2 / 255 and (reports[0][2] - made).abs().max() > 1e-3
    assert torch.equal(again, made)


@pytest.mark.parametrize("gradient", ["latent", "last_step", "full"])
@pytest.mark.parametrize("blend", [True, False])
def test_the_gradient_reaches_the_mask(make, gradient, blend):
    mask = torch.full((2, 1, 32, 32), 0.4, requires_grad=True)
    made = decoded(make(latent_blend=blend), pictures(), mask, ["a", "b"], [1, 2], gradient)
    made.sum().backward()
    assert mask.grad.isfinite().all()
    assert (mask.grad.flatten(1).abs().sum(1) > 0).all()


def test_an_impossible_gradient_names_the_generators_that_support_it(monkeypatch):
    class Plain(generators.Generator):
        needs = "instruction"

    monkeypatch.setitem(GENERATORS, "plain", Plain)
    require_gradient("plain", "composite")
    require_gradient("stable_diffusion", "full")
    with pytest.raises(ValueError, match="'latent'.*'plain'.*stable_diffusion"):
        require_gradient("plain", "latent")
    with pytest.raises(ValueError, match="generator.name.*'nothing'"):
        require_generator("nothing")


def test_noise_seeds_are_stable_and_differ():
    assert noise_seed(0, "case") == noise_seed(0, "case") == 1684653530530236621
    assert len({noise_seed(s, e, k) for s in range(3) for e in range(3) for k in ("a", "b")}) == 18


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_loop_equals_the_librarys_pipeline(make, guidance, tiny_inpaint_dir, monkeypatch):
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tiny_inpaint_dir, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = make(num_inference_steps=4, guidance_scale=guidance, latent_blend=False)
    images, mask, texts, seeds = pictures(), box(), ["a red circle", "a blue square"], [1, 2]
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    # The library samples the masked picture's latent; this comparison needs its mean.
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)
    theirs = pipeline(
        texts, images * 2 - 1, mask, height=32, width=32, latents=noise, num_inference_steps=4,
        guidance_scale=guidance, output_type="pt",
    ).images  # fmt: skip
    ours = generator.propose(images, mask, texts, seeds)
    assert (ours - theirs).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("prediction_type", "zero_snr"),
    [("epsilon", False), ("v_prediction", False), ("v_prediction", True), ("sample", False)],
)
def test_equations_20_and_21_equal_the_librarys_scheduler(tmp_path, prediction_type, zero_snr):
    from diffusers import DDIMScheduler

    folder = write_inpaint(tmp_path, prediction_type=prediction_type)
    settings = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    settings["rescale_betas_zero_snr"] = zero_snr
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))
    generator = load_generator(StableDiffusionConfig(path=str(folder), size=32, num_inference_steps=4))
    scheduler = DDIMScheduler.from_pretrained(
        folder / "scheduler", timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(4)
    assert scheduler.config.prediction_type == prediction_type
    assert [t for t, _, _ in generator.schedule] == scheduler.timesteps.tolist()
    latent, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for timestep, alpha, next_alpha in generator.schedule:
        assert (alpha == 0) == (zero_snr and timestep == 999)
        expected = scheduler.step(output, timestep, latent).prev_sample
        found = noised(*clean_and_noise(latent, output, alpha, prediction_type), next_alpha)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_schedule_ends_without_noise_for_any_number_of_steps():
    alphas = torch.linspace(0.9999, 0.005, 1000)
    for steps in (1, 2, 3, 7, 50, 1000):
        schedule = trailing_schedule(alphas, steps)
        assert len(schedule) == steps
        assert schedule[0][0] == 999 and schedule[-1][2] == 1.0
        assert all(a[2] == b[1] and a[0] > b[0] for a, b in zip(schedule, schedule[1:], strict=False))
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="generator.num_inference_steps"):
            trailing_schedule(alphas, steps)
    assert [t for t, *_ in trailing_schedule(alphas, 6, strength=0.5)] == [499, 332, 166]
    assert len(trailing_schedule(alphas, 4, strength=0.01)) == 1


@torch.no_grad()
def test_strength_starts_from_the_noised_source_and_runs_its_share_of_the_steps(make):
    images, texts, seeds = pictures(2, 32, 32), ["a circle", "a ring"], [3, 4]
    generator, inputs = make(num_inference_steps=4, strength=0.5, guidance_scale=1.0), []
    generator.unet.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    generator.propose(images, torch.ones(2, 1, 32, 32), texts, seeds)
    timestep, alpha, _ = generator.schedule[0]
    assert (len(inputs), timestep) == (2, 499)
    source = generator.source_latents(images)
    expected = alpha**0.5 * source + (1 - alpha) ** 0.5 * own_noise(seeds, source)
    torch.testing.assert_close(inputs[0][:, : source.shape[1]].float(), expected)
    with pytest.raises(ValueError, match=r"generator.strength: 0 is outside \(0, 1\]"):
        StableDiffusionConfig(strength=0)


def test_each_distinct_text_is_encoded_once_and_both_branches_go_together(make):
    texts, calls = [], []
    for guidance in (3.0, 1.0):
        generator = make(guidance_scale=guidance)
        generator.unet.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
        generator.text_encoder.register_forward_pre_hook(lambda module, inputs: texts.append(len(inputs[0])))
        generator.propose(pictures(3), box(3), ["a red circle"] * 2 + ["a blue square"], [1, 2, 3])
    assert calls == [6, 6, 3, 3] and texts == [3, 2]


@pytest.mark.parametrize("masked_image", ["pixel", "latent"])
def test_equation_16_hides_the_masked_part_of_the_source(make, masked_image):
    """The source's content under the mask must not reach the network's masked-image input."""
    generator, mask = make(masked_image=masked_image), box()
    images = pictures()
    hidden = torch.where(mask > 0, torch.rand_like(images), images)
    unet_inputs = []
    generator.unet.register_forward_pre_hook(lambda module, inputs: unet_inputs.append(inputs[0][:2, 4:]))
    generator.propose(images, mask, ["a", "b"], [1, 2])
    condition, mask_B1hw = unet_inputs[0][:, 1:], unet_inputs[0][:, :1]
    assert torch.equal(mask_B1hw, box(2, 8, 8))
    if masked_image == "latent":
        assert condition[:, :, 2:4, 2:4].abs().max() == 0
    else:
        unet_inputs.clear()
        generator.propose(hidden, mask, ["a", "b"], [1, 2])
        torch.testing.assert_close(unet_inputs[0][:, 1:], condition)


def test_equation_23_puts_the_source_back(make):
    """With blending, the decoded latent equals the source's latent outside the mask."""
    generator, images, mask = make(latent_blend=True), pictures(), box()
    latent, source = generator._sample(images, mask, ["a", "b"], [1, 2], gradient_steps=0)
    outside = (box(2, 8, 8) == 0).expand_as(latent)
    torch.testing.assert_close(latent[outside], source[outside])
    assert not torch.allclose(latent[~outside], source[~outside], atol=1e-2)


def test_the_gradient_through_all_steps_is_correct(make):
    """Compares the directional derivative through all steps with finite differences."""
    generator = make(num_inference_steps=3, guidance_scale=2.0)
    images, direction = pictures(1), torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    for module in generator.modules.values():
        module.double()
    mask = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(6)) * 0.6 + 0.2
    weights = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))

    def value(mask_B1hw):
        mask = torch.nn.functional.interpolate(mask_B1hw, (32, 32))
        latent, _ = generator._sample(images, mask, ["a"], [3], gradient_steps=3)
        return (latent.double() * weights).sum()

    mask.requires_grad_()
    slope = float((torch.autograd.grad(value(mask), mask)[0] * direction).sum())
    with torch.no_grad():
        step = 5e-3
        numeric = float(value(mask + step * direction) - value(mask - step * direction)) / (2 * step)
    assert math.isclose(slope, numeric, rel_tol=0.05)


def test_a_soft_mask_conditions_softly_and_the_padding_is_never_edited(make):
    generator, unet_inputs = make(), []
    generator.unet.register_forward_pre_hook(lambda module, inputs: unet_inputs.append(inputs[0][:1, 4]))
    generator.propose(pictures(1, 20, 32), torch.full((1, 1, 20, 32), 0.4), ["a"], [1])
    rows = 20 // generator.vae_factor
    assert (unet_inputs[0][:, :rows] - 0.4).abs().max() < 1e-6
    assert unet_inputs[0][:, rows:].abs().max() == 0


def test_modules_are_frozen_and_keep_their_precision(make):
    """Also under Lightning's bf16-mixed; half precision stays close."""
    exact, half = make(), make(dtype="bfloat16")
    for module in exact.modules.values():
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for m in module.modules())
    plain, rounded = (generator.propose(pictures(), box(), ["a", "b"], [1, 2]) for generator in (exact, half))
    assert rounded.dtype == plain.dtype and (plain - rounded).abs().mean() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(exact.propose(pictures(), box(), ["a", "b"], [1, 2]), plain)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_folder_without_such_a_generator_is_named_in_one_line(tiny_generator_dir, tmp_path, tiny_t5_dir, name):
    other = tiny_generator_dir("stable_diffusion" if name == "instruct_pix2pix" else "instruct_pix2pix")
    for folder in (tmp_path / "nothing", tiny_t5_dir, other):
        with pytest.raises(ValueError, match=f"^generator.path: .*{folder}") as error:
            load_generator(GENERATOR_CONFIGS[name](path=str(folder)))
        assert "\n" not in str(error.value)
