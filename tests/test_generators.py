"""The contract of every generator, and the paper's appendix A against diffusers' own pipeline and scheduler."""

import dataclasses
import json
import math

import pytest
import torch

from regionedit import generators
from regionedit.config import GENERATOR_CONFIGS, StableDiffusionConfig
from regionedit.generators import (
    GENERATORS,
    DifferentiableGenerator,
    load_generator,
    noise_seed,
    require_generator,
    require_gradient,
)
from regionedit.generators.noise_schedule import trailing_schedule
from regionedit.generators.stable_diffusion import noised
from regionedit.records import Captions, EditRequest, Region
from tests.edits import decoded
from tests.edits import edited as edited_by
from tests.tiny_models import write_inpaint, write_instruct_pix2pix, write_masked_token, write_next_scale


@pytest.fixture(scope="module")
def folders(tiny_inpaint_dir, tmp_path_factory):
    """Folders with tiny weights for each generator; a new generator needs a line here."""
    return {
        "stable_diffusion": tiny_inpaint_dir,
        "instruct_pix2pix": write_instruct_pix2pix(tmp_path_factory.mktemp("ip2p")),
        "diffusers_inpaint": tiny_inpaint_dir,
        "next_scale": write_next_scale(tmp_path_factory.mktemp("next_scale")),
        "masked_token": write_masked_token(tmp_path_factory.mktemp("masked_token")),
    }


@pytest.fixture
def make(folders):
    def make(name="stable_diffusion", **changes):
        settings = {"size": 32, **({} if name == "next_scale" else {"num_inference_steps": 2}), **changes}
        return load_generator(GENERATOR_CONFIGS[name](path=str(folders[name]), **settings))

    return make


def pictures(count=2, height=32, width=32, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def box(height=32, width=32, count=2):
    mask = torch.zeros(count, 1, height, width)
    mask[..., height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


def requests_for(images):
    requests = [EditRequest(image=None, instructions=f"remove the circle {i}") for i in range(len(images))]
    return requests, [Captions("a red circle", f"a blue square {i}") for i in range(len(images))]


# ---------------------------------------------------------------- the contract, for every generator


@pytest.mark.parametrize("name", sorted(GENERATORS))
@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 51)])
def test_size_is_kept_and_outside_the_mask_nothing_changes(make, name, height, width):
    images, mask = pictures(2, height, width), box(height, width)
    requests, captions = requests_for(images)
    edited = edited_by(make(name), images, Region(mask, mask), requests, captions, [1, 2])
    assert edited.shape == images.shape and edited.dtype == images.dtype
    assert edited.min() >= 0 and edited.max() <= 1 and edited.isfinite().all()
    outside = (mask == 0).expand_as(images)
    assert torch.equal(edited[outside], images[outside])
    assert not torch.equal(edited[~outside], images[~outside])


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_an_empty_mask_returns_the_input(make, name):
    images, empty = pictures(), torch.zeros(2, 1, 32, 32)
    edited = edited_by(make(name), images, Region(empty, empty), *requests_for(images), [1, 2])
    assert torch.equal(edited, images)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_same_seed_same_picture_without_gradient_whatever_the_batch(make, name):
    generator, images, mask = make(name), pictures(3), box(count=3).requires_grad_()
    texts, seeds = ["a red circle", "a blue square", "a red circle"], [11, 12, 13]
    together = generator.propose(images, mask, texts, seeds)
    assert not together.requires_grad and torch.is_grad_enabled()
    reverse = generator.propose(images.flip(0), mask, texts[::-1], seeds[::-1]).flip(0)
    alone = torch.cat([generator.propose(images[i : i + 1], mask[:1], texts[i : i + 1], [seeds[i]]) for i in range(3)])
    assert (together - alone).abs().max() <= 1 / 255
    assert (together - reverse).abs().max() <= 1 / 255
    other = generator.propose(images, mask, texts, [21, 22, 23])
    assert (together - other).abs().max() > 1 / 255


@pytest.mark.parametrize("name", sorted(k for k, v in GENERATORS.items() if issubclass(v, DifferentiableGenerator)))
@pytest.mark.parametrize("gradient", ["latent", "last_step", "full"])
@pytest.mark.parametrize("blend", [True, False])
def test_the_gradient_reaches_the_mask(make, name, gradient, blend):
    mask = torch.full((2, 1, 32, 32), 0.4, requires_grad=True)
    made = decoded(make(name, latent_blend=blend), pictures(), mask, ["a", "b"], [1, 2], gradient)
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


# ---------------------------------------------------------------- Stable Diffusion, appendix A


@pytest.fixture(scope="module")
def pipeline(tiny_inpaint_dir):
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tiny_inpaint_dir, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_loop_equals_the_librarys_pipeline(make, pipeline, guidance):
    generator = make(num_inference_steps=4, guidance_scale=guidance, latent_blend=False)
    images, mask, texts, seeds = pictures(), box(), ["a red circle", "a blue square"], [1, 2]
    shape = (1, 4, 32 // generator.vae_factor, 32 // generator.vae_factor)
    noise = torch.cat([torch.randn(shape[1:], generator=torch.Generator().manual_seed(s))[None] for s in seeds])
    # The library samples the masked picture's latent; this comparison needs its mean.
    original = pipeline.vae.encode
    try:
        pipeline.vae.encode = lambda x: dataclasses.replace(original(x), latent_dist=_Mean(original(x).latent_dist))
        theirs = pipeline(
            texts, images * 2 - 1, mask, height=32, width=32, latents=noise, num_inference_steps=4,
            guidance_scale=guidance, output_type="pt",
        ).images  # fmt: skip
    finally:
        pipeline.vae.encode = original
    ours = generator.propose(images, mask, texts, seeds)
    assert (ours - theirs).abs().max() < 1e-3


class _Mean:
    def __init__(self, distribution):
        self.mean = distribution.mean

    def sample(self, generator=None):
        return self.mean


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
        found = noised(*generator._clean_and_noise(latent, output, alpha), next_alpha)
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


def test_guidance_is_one_call_of_both_branches(make):
    generator, calls = make(guidance_scale=3.0), []
    generator.unet.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape))
    generator.propose(pictures(), box(), ["a", "b"], [1, 2])
    assert calls == [(4, 9, 8, 8)] * 2
    unguided = make(guidance_scale=1.0)
    unguided.unet.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].shape))
    unguided.propose(pictures(), box(), ["a", "b"], [1, 2])
    assert calls[2:] == [(2, 9, 8, 8)] * 2


def test_each_distinct_text_is_encoded_once(make):
    generator, calls = make(), []
    generator.text_encoder.register_forward_pre_hook(
        lambda module, inputs, named: calls.append(len(named["input_ids"] if "input_ids" in named else inputs[0])),
        with_kwargs=True,
    )
    generator.propose(pictures(4), box(count=4), ["a red circle"] * 3 + ["a blue square"], [1, 2, 3, 4])
    assert calls == [3]


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
    assert torch.equal(mask_B1hw, box(8, 8))
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
    outside = (box(8, 8) == 0).expand_as(latent)
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


def test_everything_is_frozen_and_in_eval_mode(make):
    for module in make().modules.values():
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for m in module.modules())


def test_autocast_does_not_change_the_precision(make):
    """The generator keeps its configured precision under Lightning's bf16-mixed."""
    images, mask = pictures(), box()
    outside = make().propose(images, mask, ["a", "b"], [1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        inside = make().propose(images, mask, ["a", "b"], [1, 2])
    assert torch.equal(outside, inside)


def test_half_precision_stays_close(make):
    images, mask = pictures(), box()
    exact = make().propose(images, mask, ["a", "b"], [1, 2])
    half = make(dtype="bfloat16").propose(images, mask, ["a", "b"], [1, 2])
    assert half.dtype == exact.dtype and (exact - half).abs().mean() < 0.05


def test_a_missing_or_unsuitable_folder_is_named(tmp_path, tiny_t5_dir):
    for path in (tmp_path / "nothing", tiny_t5_dir):
        with pytest.raises(ValueError, match="generator.path"):
            load_generator(StableDiffusionConfig(path=str(path)))


def test_instruct_pix2pix_follows_the_instruction_and_ignores_the_mask(make):
    generator, images, everything = make("instruct_pix2pix"), pictures(), torch.ones(2, 1, 32, 32)
    texts = ["make it red", "make it blue"]
    requests = [EditRequest(image=None, instructions=text) for text in texts]
    made = edited_by(generator, images, Region(everything, everything), requests, [None, None], [1, 1])
    assert torch.equal(generator.propose(images, box(), texts, [1, 1]), made)


def test_an_in_painter_is_not_an_instruct_pix2pix_nor_the_reverse(folders):
    for name, other in (("stable_diffusion", "instruct_pix2pix"), ("instruct_pix2pix", "stable_diffusion")):
        with pytest.raises(ValueError, match="generator.path: .*(channels|could be loaded)"):
            load_generator(GENERATOR_CONFIGS[name](path=str(folders[other])))
