"""One contract for every in-painting class of the table, tested on tiny random pipelines of the real classes."""

import dataclasses
import gc
import inspect
import json
import weakref
from pathlib import Path

import diffusers
import pytest
import torch

from regionedit.command_line import load_config
from regionedit.config import DiffusersInpaintConfig, EditConfig
from regionedit.generators import load_generator
from regionedit.generators.inpaint_pipelines import INPAINT_PIPELINES, require_pipeline
from regionedit.images import to_pictures
from regionedit.records import Captions, EditRequest, Region
from tests.edits import edited as edited_by
from tests.tiny_pipelines import write_pipeline

NAMES = sorted(INPAINT_PIPELINES)
PAINTS_FREELY = {"StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline", "FluxFillPipeline"}
"""Those whose networks see the mask; the others put the source's latents back outside of it at every step."""

EDIT = "QwenImageEditInpaintPipeline"


@pytest.fixture(scope="module", autouse=True)
def a_small_megapixel():
    """Qwen-Image-Edit always works at one megapixel, which takes minutes even here; this reduces it to 64 x 64."""
    import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_inpaint as module

    with pytest.MonkeyPatch.context() as patch:
        theirs = module.calculate_dimensions
        patch.setattr(module, "calculate_dimensions", lambda area, ratio: theirs(64 * 64, ratio))
        patch.setitem(INPAINT_PIPELINES, EDIT, dataclasses.replace(INPAINT_PIPELINES[EDIT], area=64 * 64))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    written = {}

    def folder(name):
        if name not in written:
            written[name] = write_pipeline(name, tmp_path_factory.mktemp("pipeline"))
        return written[name]

    return folder


@pytest.fixture(scope="module")
def make(folder):
    loaded = {}

    def make(name, **changes):
        settings = {"size": 32, "num_inference_steps": 3, "guidance_scale": 3.0, **changes}
        config = DiffusersInpaintConfig(path=str(folder(name)), **settings)
        if name not in loaded:
            loaded[name] = load_generator(
                DiffusersInpaintConfig(path=str(folder(name)), size=32, num_inference_steps=3)
            )
        return loaded[name].using(config)

    return make


def pictures(count=2, height=32, width=32):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


def box(count=2, height=32, width=32):
    mask = torch.zeros(count, 1, height, width)
    mask[..., height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


TEXTS = ["a red circle", "make the big blue square to the left of the ring green", "a ring"]


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("name", NAMES)
def test_the_table_agrees_with_the_installed_classes(name):
    how, kind = INPAINT_PIPELINES[name], getattr(diffusers, name)
    call = inspect.signature(kind.__call__).parameters
    assert call["strength"].default == how.strength
    assert {how.guidance, "image", "mask_image", "generator", "callback_on_step_end"} <= set(call)
    assert how.negative is None or "negative_prompt" in call
    assert how.keeps_size == ("_auto_resize" in call)
    assert how.latents in ("plain", "patched") or hasattr(kind, "_unpack_latents")
    components = set(kind._get_signature_keys(kind)[0]) - set(kind._optional_components)
    for sibling in how.siblings:
        assert components <= set(inspect.signature(getattr(diffusers, sibling).__init__).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_generator_needs_is_known_before_it_is_loaded(name, folder, make):
    kind = type(make(name))
    by_folder = DiffusersInpaintConfig(path=str(folder(name)))
    by_name = DiffusersInpaintConfig(path="owner/nothing-that-exists", pipeline=name)
    assert kind.needs_of(by_folder) == kind.needs_of(by_name) == make(name).needs == INPAINT_PIPELINES[name].needs


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 51)])
def test_size_is_kept_and_outside_the_mask_nothing_changes(make, name, height, width):
    images, mask = pictures(2, height, width), box(2, height, width)
    requests = [EditRequest(image=None, instructions="remove the circle")] * 2
    edited = edited_by(make(name), images, Region(mask, mask), requests, [Captions("a circle", "a ring")] * 2, [1, 2])
    assert edited.shape == images.shape and edited.dtype == images.dtype
    assert edited.min() >= 0 and edited.max() <= 1 and edited.isfinite().all()
    outside = (mask == 0).expand_as(images)
    assert torch.equal(edited[outside], images[outside])
    assert not torch.equal(edited[~outside], images[~outside])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_returns_the_source_and_calls_no_pipeline(make, name):
    generator, images = make(name), pictures()
    generator.pipeline = None
    assert torch.equal(generator.propose(images, torch.zeros(2, 1, 32, 32), TEXTS[:2], [1, 2]), images)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_does_not_depend_on_its_batch_but_on_text_seed_and_mask(make, name):
    generator, images, mask = make(name), pictures(3), box(3)
    mask[1] = 0  # an unedited picture between two edited ones
    mask[2] = mask[2].flip(-1)
    seeds = [11, 12, 13]
    together = generator.propose(images, mask, TEXTS, seeds)
    rows = [slice(0, 1), slice(2, 3)]
    alone = [generator.propose(images[r], mask[r], TEXTS[r], seeds[r]) for r in rows]
    off = max((together[r] - one).abs().max() for r, one in zip(rows, alone, strict=True))
    assert off <= 1 / 255
    assert torch.equal(together[1], images[1])
    first = rows[0]
    others = {
        "text": generator.propose(images[first], mask[first], [TEXTS[1]], seeds[first]),
        "seed": generator.propose(images[first], mask[first], TEXTS[first], [21]),
        "mask": generator.propose(images[first], mask[first].flip(-1), TEXTS[first], seeds[first]),
    }
    for what, other in others.items():
        assert (other - alone[0]).abs().max() > max(10 * off, 1e-4), what


@pytest.mark.parametrize("name", NAMES)
def test_previews_are_pictures_and_the_last_is_the_result(make, name):
    """The mask covers everything: previews show the generated picture, before the source is put back outside."""
    reports, images = [], pictures(2, 32, 48)
    generator = make(name, strength=1.0)
    watch = lambda step, steps, preview: reports.append((step, steps, preview()))  # noqa: E731
    made = generator.generate(images, torch.ones(2, 1, 32, 48), TEXTS[:2], [1, 2], watch)
    steps = 3 if INPAINT_PIPELINES[name].batches else 6
    assert [(step, of) for step, of, _ in reports] == [(step, steps) for step in range(1, steps + 1)]
    for _, _, preview in reports:
        assert preview.shape == images.shape and preview.min() >= 0 and preview.max() <= 1
    assert (reports[-1][2] - made).abs().max() < 2 / 255
    assert (reports[0][2] - made).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_in_the_callback_ends_the_edit_and_leaves_no_trace(make, name):
    class Enough(Exception):
        pass

    def stop(step, steps, preview):
        raise Enough

    generator, images = make(name), pictures(1)
    before = generator.propose(images, box(1), TEXTS[:1], [1])
    with pytest.raises(Enough):
        generator.propose(images, box(1), TEXTS[:1], [1], stop)
    assert "step" not in vars(generator.scheduler)
    assert torch.equal(generator.propose(images, box(1), TEXTS[:1], [1]), before)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_frozen_close_in_half_precision_and_its_memory_is_released(folder, make, name):
    config = DiffusersInpaintConfig(path=str(folder(name)), size=32, num_inference_steps=2, dtype="bfloat16")
    generator = load_generator(config)
    half = generator.propose(
        pictures(1), box(1).requires_grad_(), TEXTS[:1], [1], lambda step, steps, preview: preview()
    )
    exact = make(name, num_inference_steps=2, guidance_scale=config.guidance_scale).propose(
        pictures(1), box(1), TEXTS[:1], [1]
    )
    assert half.dtype == torch.float32 and not half.requires_grad and (half - exact).abs().mean() < 0.05
    parts = [part for part in generator.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight for part in parts for weight in part.parameters()]
    assert len(weights) > 20 and not any(weight.requires_grad for weight in weights)
    alive = [weakref.ref(weight) for weight in weights]
    del generator, parts, weights
    gc.collect()
    assert [ref for ref in alive if ref() is not None] == []


def test_an_autoencoder_that_overflows_in_half_precision_decodes_previews_in_float32(folder):
    """SDXL's autoencoder says so in its configuration; it returns to half precision afterwards."""
    path = folder("StableDiffusionXLInpaintPipeline")
    generator = load_generator(DiffusersInpaintConfig(path=str(path), size=32, num_inference_steps=2, dtype="float16"))
    dtypes, own = [], generator.pipeline.vae.decode
    generator.pipeline.vae.decode = lambda z, *a, **k: dtypes.append(z.dtype) or own(z, *a, **k)
    made = generator.propose(pictures(1), box(1), TEXTS[:1], [1], lambda step, steps, preview: preview())
    assert made.isfinite().all() and set(dtypes) == {torch.float32}
    assert generator.pipeline.vae.dtype == torch.float16


# ---------------------------------------------------------------- against the library itself


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_equals_the_pipelines_own(make, name):
    """Compares with a direct call with PIL pictures and default strength.

    Only Stable Diffusion 3 must differ: its pipeline omits the autoencoder's shift.
    """
    how, generator, images, mask = INPAINT_PIPELINES[name], make(name), pictures(1), box(1)
    arguments = {how.guidance: 3.0}
    if how.negative is not None:
        arguments["negative_prompt"] = " "
    if name == "FluxKontextInpaintPipeline":
        arguments |= {"max_area": 32 * 32, "_auto_resize": False}
    if name != EDIT:
        arguments |= {"height": 32, "width": 32}
    theirs = generator.pipeline(
        prompt=TEXTS[0],
        image=to_pictures(images)[0],
        mask_image=to_pictures(mask)[0],
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
        **arguments,
    ).images
    ours = generator.propose(images, mask, TEXTS[:1], [5])
    if name == EDIT:
        theirs = torch.nn.functional.interpolate(theirs, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    close = (ours - theirs).abs().max() < 1 / 255
    assert close != how.forgets_shift


@pytest.mark.parametrize("name", sorted(set(NAMES) - PAINTS_FREELY))
def test_outside_the_mask_the_decoded_latent_is_the_encoded_source(make, name, monkeypatch):
    """Compared in the autoencoder's own units, so that a forgotten scale or shift would show."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)
    generator, images, mask = make(name), pictures(1), box(1)
    vae, decoded = generator.pipeline.vae, []
    monkeypatch.setattr(vae, "decode", lambda z, *a, _own=vae.decode, **k: decoded.append(z) or _own(z, *a, **k))
    generator.propose(images, mask, TEXTS[:1], [5])
    side = int(decoded[0].shape[-1]) * generator.pipeline.vae_scale_factor
    source = torch.nn.functional.interpolate(images, (side, side), mode="bicubic") * 2 - 1
    if name == EDIT:
        resized = to_pictures(images)[0].resize((side, side), 1)  # Lanczos, as in the pipeline
        source = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(1, side, side, 3)
        source = source.permute(0, 3, 1, 2).float() / 255 * 2 - 1
    encoded = vae.encode(source[:, :, None] if decoded[0].ndim == 5 else source).latent_dist.mean
    cells = torch.nn.functional.max_pool2d(mask, 32 // decoded[0].shape[-1]) if side == 32 else None
    outside = (cells == 0) if cells is not None else _twice(mask) == 0
    outside = outside.view(1, 1, *[1] * (encoded.ndim - 4), *outside.shape[-2:]).expand_as(encoded)
    if name == "Flux2KleinInpaintPipeline":  # its masks have one value for 2 x 2 cells
        outside = torch.ones_like(outside)
        outside[..., 2:4, 2:4] = False
    assert (decoded[0] - encoded)[outside].abs().max() < 1e-3
    assert (decoded[0] - encoded)[~outside].abs().max() > 1e-2


def _twice(mask):
    """A mask of 32 px, reduced to 16 x 16 cells, for a picture of 64 px."""
    return torch.nn.functional.max_pool2d(mask, 2)


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize("name", NAMES)
def test_single_pixels_the_border_and_regions_far_apart_are_edited(make, name):
    """A latent cell with at least one edited pixel is edited, wherever the pixel is."""
    regions = [[(0, 0)], [(13, 18)], [(0, 31), (31, 0)]]
    mask = torch.zeros(3, 1, 32, 32)
    for row, pixels in enumerate(regions):
        for y, x in pixels:
            mask[row, :, y, x] = 1
    generator = make(name, strength=1.0)
    one, other = (generator.propose(pictures(3), mask, TEXTS, [seed, seed + 1, seed + 2]) for seed in (1, 11))
    for row, pixels in enumerate(regions):
        for y, x in pixels:
            assert (one - other)[row, :, y, x].abs().max() > 1e-4, (y, x)


# ---------------------------------------------------------------- which class


def test_a_checkpoint_of_a_sibling_class_works_if_the_pipeline_is_named(folder, tmp_path):
    path = folder("FluxInpaintPipeline")
    index = json.loads((path / "model_index.json").read_text())
    copied = tmp_path / "copied"
    copied.mkdir()
    for part in path.iterdir():
        if part.name != "model_index.json":
            (copied / part.name).symlink_to(part)
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    plain = DiffusersInpaintConfig(path=str(copied), size=32, num_inference_steps=2)
    with pytest.raises(ValueError, match=r"^generator.path: .* FluxPipeline.* set generator.pipeline to FluxInpaint"):
        require_pipeline(plain)
    named = load_generator(dataclasses.replace(plain, pipeline="FluxInpaintPipeline"))
    assert type(named.pipeline).__name__ == "FluxInpaintPipeline"
    with pytest.raises(ValueError, match="^generator.path: .* holds a FluxPipeline; ChromaInpaintPipeline needs"):
        load_generator(dataclasses.replace(plain, pipeline="ChromaInpaintPipeline"))
    with pytest.raises(ValueError, match="^generator.pipeline: no in-painting pipeline 'Flux'; there are"):
        load_generator(dataclasses.replace(plain, pipeline="Flux"))


def test_the_docs_page_agrees_with_the_classes():
    page = (Path(__file__).parents[1] / "docs" / "generators.md").read_text()
    rows = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in INPAINT_PIPELINES:
            rows[cells[0]] = cells[1:]
    assert set(rows) == set(INPAINT_PIPELINES)
    for name, (checkpoint, config, needs, strength, guidance, outside) in rows.items():
        how, call = INPAINT_PIPELINES[name], inspect.signature(getattr(diffusers, name).__call__).parameters
        assert (needs, float(strength)) == (how.needs, how.strength), name
        assert guidance == f"{how.guidance} {call[how.guidance].default}", name
        assert (outside == "the network sees the mask") == (name in PAINTS_FREELY), name
        if config:
            generator = load_config(EditConfig, f"configs/edit_{config}.yaml").generator
            assert (generator.name, generator.path, generator.pipeline) == ("diffusers_inpaint", checkpoint, name)
