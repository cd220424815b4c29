"""Every in-painting class of the table against the library itself, on tiny random pipelines of the real classes."""

import dataclasses
import gc
import inspect
import json
import shutil
import weakref
from pathlib import Path

import diffusers
import pytest
import torch

from regionedit.command_line import load_config
from regionedit.config import DiffusersInpaintConfig, EditConfig
from regionedit.generators import DiffusersInpaint, load_generator
from regionedit.generators.inpaint_pipelines import INPAINT_PIPELINES, require_pipeline
from regionedit.images import to_pictures
from tests.generator_inputs import box, pictures

NAMES = sorted(INPAINT_PIPELINES)
PAINTS_FREELY = {"StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline", "FluxFillPipeline"}
"""Those whose networks see the mask; the others put the source's latents back outside of it at every step."""

EDIT = "QwenImageEditInpaintPipeline"
TEXTS = ["a red circle", "make the big blue square to the left of the ring green", "a ring"]
pytestmark = pytest.mark.usefixtures("small_megapixel")


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
def test_what_a_generator_needs_is_known_before_it_is_loaded(name, tiny_generator_dir, tiny_generator):
    by_folder = DiffusersInpaintConfig(path=str(tiny_generator_dir(name)))
    by_name = DiffusersInpaintConfig(path="owner/nothing-that-exists", pipeline=name)
    needs = [DiffusersInpaint.needs_of(by_folder), DiffusersInpaint.needs_of(by_name), tiny_generator(name).needs]
    assert needs == [INPAINT_PIPELINES[name].needs] * 3


@pytest.mark.parametrize("name", NAMES)
def test_it_is_frozen_close_in_half_precision_and_its_memory_is_released(tiny_generator_dir, tiny_generator, name):
    exact = tiny_generator(name, num_inference_steps=2)
    generator = load_generator(dataclasses.replace(exact.config, dtype="bfloat16"))
    show = lambda step, steps, preview: preview()  # noqa: E731
    half = generator.propose(pictures(1), box(1).requires_grad_(), TEXTS[:1], [1], show)
    difference = half - exact.propose(pictures(1), box(1), TEXTS[:1], [1])
    assert half.dtype == torch.float32 and not half.requires_grad and difference.abs().mean() < 0.05
    parts = [part for part in generator.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    weights = [weight for part in parts for weight in part.parameters()]
    assert len(weights) > 20 and not any(weight.requires_grad for weight in weights)
    alive = [weakref.ref(weight) for weight in weights]
    del generator, parts, weights
    gc.collect()
    assert [ref for ref in alive if ref() is not None] == []


def test_an_autoencoder_that_overflows_in_half_precision_decodes_previews_in_float32(tiny_generator_dir):
    """SDXL's autoencoder says so in its configuration; it returns to half precision afterwards."""
    path = tiny_generator_dir("StableDiffusionXLInpaintPipeline")
    generator = load_generator(DiffusersInpaintConfig(path=str(path), size=32, num_inference_steps=2, dtype="float16"))
    dtypes, own = [], generator.pipeline.vae.decode
    generator.pipeline.vae.decode = lambda z, *a, **k: dtypes.append(z.dtype) or own(z, *a, **k)
    made = generator.propose(pictures(1), box(1), TEXTS[:1], [1], lambda step, steps, preview: preview())
    assert made.isfinite().all() and set(dtypes) == {torch.float32}
    assert generator.pipeline.vae.dtype == torch.float16


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_equals_the_pipelines_own(tiny_generator, name):
    """Compares with a direct call with PIL pictures and default strength.

    Only Stable Diffusion 3 must differ: its pipeline omits the autoencoder's shift.
    """
    how, generator, images, mask = INPAINT_PIPELINES[name], tiny_generator(name), pictures(1), box(1)
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
def test_outside_the_mask_the_decoded_latent_is_the_encoded_source(tiny_generator, name, monkeypatch):
    """Compared in the autoencoder's own units, so that a forgotten scale or shift would show."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)
    generator, images, mask = tiny_generator(name), pictures(1), box(1)
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
    outside = torch.nn.functional.max_pool2d(mask, 32 // decoded[0].shape[-1]) == 0
    outside = outside.view(1, 1, *[1] * (encoded.ndim - 4), *outside.shape[-2:]).expand_as(encoded)
    if name == "Flux2KleinInpaintPipeline":  # its masks have one value for 2 x 2 cells
        outside = torch.ones_like(outside)
        outside[..., 2:4, 2:4] = False
    assert (decoded[0] - encoded)[outside].abs().max() < 1e-3
    assert (decoded[0] - encoded)[~outside].abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_single_pixels_the_border_and_regions_far_apart_are_edited(tiny_generator, name):
    """A latent cell with at least one edited pixel is edited, wherever the pixel is."""
    places = torch.tensor([(0, 0, 0), (1, 13, 18), (2, 0, 31), (2, 31, 0)])  # picture, row, column
    mask = torch.zeros(3, 1, 32, 32)
    mask[places[:, 0], 0, places[:, 1], places[:, 2]] = 1
    generator = tiny_generator(name, strength=1.0, num_inference_steps=1)
    one, other = (generator.propose(pictures(3), mask, TEXTS, [seed, seed + 1, seed + 2]) for seed in (1, 11))
    changed = (one - other)[places[:, 0], :, places[:, 1], places[:, 2]].abs().amax(1)
    assert (changed > 1e-4).all()


def test_a_checkpoint_of_a_sibling_class_works_if_the_pipeline_is_named(tiny_generator_dir, tmp_path):
    copied = shutil.copytree(tiny_generator_dir("FluxInpaintPipeline"), tmp_path / "copied")
    index = json.loads((copied / "model_index.json").read_text())
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
    page = Path("docs/generators.md").read_text()
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
