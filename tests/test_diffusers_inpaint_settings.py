"""Settings of the in-painting adapter, and its errors for models that cannot be loaded and impossible settings."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import errors
from PIL import Image
from safetensors.torch import save_file

from regionedit.command_line import load_config
from regionedit.config import DiffusersInpaintConfig, EditConfig
from regionedit.editor import Editor
from regionedit.generators import inpaint_pipelines, load_generator
from regionedit.generators.device_memory import lighter
from regionedit.generators.low_rank import FILE
from regionedit.records import Captions, EditRequest, EditResult
from tests.generator_inputs import pictures
from tests.tiny_pipelines import write_checked

PICTURE = Image.effect_noise((32, 32), 80).convert("RGB")


@pytest.fixture(scope="module")
def kontext(tiny_generator_dir):
    return tiny_generator_dir("FluxKontextInpaintPipeline")


@pytest.fixture
def broken(kontext, tmp_path):
    """A copy that a test can damage."""
    return shutil.copytree(kontext, tmp_path / "broken")


def settings(path, **changes):
    return DiffusersInpaintConfig(path=str(path), **{"size": 32, "num_inference_steps": 2, **changes})


def propose(generator, seed=1, text="a ring", watch=None):
    return generator.propose(pictures(1), torch.ones(1, 1, 32, 32), [text], [seed], watch)


def test_an_editor_needs_only_the_text_that_the_checkpoint_follows(tiny_edit_config, kontext, tiny_inpaint_dir):
    """No caption describes this noise. Kontext does not need one; Stable Diffusion does."""
    request = EditRequest(PICTURE, instructions="make the ring blue", id="a")

    def edit(path):
        config = dataclasses.replace(tiny_edit_config, generator=settings(path), mask_source="everything")
        return Editor(config).edit_batch([request])[0]

    assert isinstance(edit(kontext), EditResult)
    assert edit(tiny_inpaint_dir).reason == "instruction: the picture shows no ring"


def test_too_little_memory_fails_the_edit_with_the_settings_that_need_less(tiny_edit_config, kontext):
    config = dataclasses.replace(tiny_edit_config, generator=settings(kontext), mask_source="everything", batch=4)
    editor = Editor(config)
    transformer, whole, room = editor.models.generator(editor.config).denoiser, [], 2

    def scarce(*args, _own=transformer.forward, **named):
        whole.append(len(named["hidden_states"]))
        if whole[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return _own(*args, **named)

    transformer.forward = scarce
    requests = [EditRequest(PICTURE, instructions="make the ring blue", id=str(n)) for n in range(4)]
    assert all(isinstance(result, EditResult) for result in editor.edit_batch(requests))
    assert set(whole) == {4, 2}, "the batch is halved"
    room = 0
    (failed,) = editor.edit_batch(requests[:1])
    assert failed.reason.startswith("generator: too little memory on cpu")
    assert "--generator.size" in failed.reason and "CUDA" not in failed.reason


def test_the_error_names_the_setting_that_fits_into_memory():
    gib = 2**30
    full = DiffusersInpaintConfig(dtype="float32")
    half = DiffusersInpaintConfig(dtype="bfloat16")
    assert lighter(full, [8 * gib, 2 * gib], 16 * gib) == "generator.dtype bfloat16"
    assert lighter(half, [12 * gib, 10 * gib], 16 * gib) == "generator.offload model"
    both = "generator.offload model --generator.dtype bfloat16"
    assert lighter(full, [24 * gib, 20 * gib], 16 * gib) == both
    assert lighter(half, [24 * gib, 10 * gib], 16 * gib) == "generator.offload sequential"
    assert lighter(dataclasses.replace(half, offload="model"), [9 * gib], 16 * gib) == "generator.offload sequential"


def test_a_blacked_out_picture_is_named_and_the_safety_checker_can_be_off(tiny_edit_config, tmp_path):
    request = EditRequest(PICTURE, instructions="x", captions=Captions("a square", "a ring"), id="a")
    strict, lenient = write_checked(tmp_path / "strict", True), write_checked(tmp_path / "lenient", False)

    config = dataclasses.replace(tiny_edit_config, generator=settings(strict), mask_source="everything")
    (refused,) = Editor(config).edit_batch([request])
    assert refused.reason.startswith("generator.safety_checker: the model's safety checker blacked out")
    checked, unchecked = (load_generator(settings(lenient, safety_checker=how)) for how in ("keep", "off"))
    assert checked.pipeline.safety_checker is not None and unchecked.pipeline.safety_checker is None
    assert torch.equal(propose(checked), propose(unchecked))
    assert propose(load_generator(settings(strict, safety_checker="off"))).isfinite().all()


def test_a_damaged_folder_is_refused_with_what_it_lacks(broken):
    """Truncated weights, then missing folders, a component that the index does not name, and a broken index."""
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="^generator.path: no in-painting pipeline could be loaded"):
        load_generator(settings(broken))
    shutil.rmtree(broken / "transformer")
    shutil.rmtree(broken / "tokenizer_2")
    with pytest.raises(ValueError, match="^generator.path: .* lacks tokenizer_2, transformer of its FluxKontext"):
        load_generator(settings(broken))
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({key: value for key, value in index.items() if key != "vae"}))
    with pytest.raises(ValueError, match="^generator.path: .* lacks tokenizer_2, transformer, vae"):
        load_generator(settings(broken))
    (broken / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="^generator.path: model_index.json of .* names no pipeline class"):
        load_generator(settings(broken))


def test_folders_of_something_else_are_named(tiny_ip2p_dir, tiny_t5_dir, tmp_path):
    with pytest.raises(ValueError, match="holds a StableDiffusionInstructPix2PixPipeline, not a known in-painting"):
        load_generator(settings(tiny_ip2p_dir))
    with pytest.raises(ValueError, match="^generator.path: .* has no model_index.json"):
        load_generator(settings(tiny_t5_dir))
    with pytest.raises(ValueError, match="^generator.path: no folder and no model"):
        load_generator(settings(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="^generator.path: no folder 'owner/name' here, and the hub cannot be reached"):
        load_generator(settings("owner/name"))


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, errors.GatedRepoError, "accept them on https://huggingface.co/owner/gated and log in with `hf auth"),
        (401, errors.HfHubHTTPError, "accept them on https://huggingface.co/owner/gated and log in with `hf auth"),
        (404, errors.RepositoryNotFoundError, "no folder and no model 'owner/gated' on the hub"),
        (404, errors.EntryNotFoundError, "could be loaded from 'owner/gated'"),
        (500, errors.HfHubHTTPError, "could be loaded from 'owner/gated'"),
    ],
)
@pytest.mark.parametrize("pipeline", [None, "FluxFillPipeline"])
def test_a_gated_model_says_what_to_accept_and_how_to_log_in(monkeypatch, status, kind, said, pipeline):
    import huggingface_hub

    def refuse(*args, **named):
        response = SimpleNamespace(status_code=status, headers={}, request=None)
        raise kind("refused", response=response) if issubclass(kind, errors.HfHubHTTPError) else kind("refused")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match="^generator.path: ") as error:
        load_generator(settings("owner/gated", pipeline=pipeline))
    assert said in str(error.value) and "\n" not in str(error.value)
    inpaint_pipelines._from_hub.cache_clear()


def test_settings_that_cannot_run_are_refused(kontext, tiny_generator):
    loaded = tiny_generator("FluxKontextInpaintPipeline")
    for changes, said in (
        ({"strength": 0.0}, "generator.strength: .*outside"),
        ({"strength": 1.5}, "generator.strength: .*outside"),
        ({"strength": 0.2}, "generator.strength: .*less than one; raise it or generator.num_inference_steps"),
        ({"scheduler": "lcm"}, "generator.scheduler: 'lcm' cannot be used with FluxKontextInpaintPipeline"),
    ):
        for load in (load_generator, loaded.using):
            with pytest.raises(ValueError, match=f"^{said}"):
                load(settings(kontext, **changes))
    for change in ({"offload": "model"}, {"compile": True}, {"safety_checker": "off"}, {"lora": "x"}):
        with pytest.raises(ValueError, match=f"^generator.{next(iter(change))}: decided when the weights are loaded"):
            loaded.using(settings(kontext, **change))


def test_strength_decides_how_much_of_the_source_is_left_and_how_many_steps_run(tiny_generator):
    name, counted = "FluxKontextInpaintPipeline", []
    generator = tiny_generator(name, num_inference_steps=4, strength=0.5)
    weak = propose(generator, watch=lambda step, steps, preview: counted.append((step, steps)))
    assert counted == [(1, 2), (2, 2)]
    assert not torch.equal(propose(tiny_generator(name, num_inference_steps=4, strength=1.0)), weak)


@pytest.mark.parametrize("name", ["lcm", "ddim", "dpm"])
def test_another_scheduler_leaves_the_generator_unchanged_and_pictures_independent(tiny_generator, name):
    own, changed = (
        tiny_generator("diffusers_inpaint", num_inference_steps=4, scheduler=scheduler) for scheduler in (None, name)
    )
    before = propose(own)
    images, mask, previews = torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32), []
    watch = lambda step, steps, preview: previews.append(preview())  # noqa: E731
    together = changed.propose(images, mask, ["a", "b"], [1, 2], watch)
    alone = torch.cat([changed.propose(images[i : i + 1], mask[:1], ["ab"[i]], [i + 1]) for i in range(2)])
    assert (together - alone).abs().max() < 1 / 255
    assert (previews[-1] - together).abs().max() < 8 / 255  # DDIM ends with a little noise left here
    assert torch.equal(propose(own), before)
    assert (name == "ddim") == torch.equal(propose(changed), before)  # the tiny checkpoint's default is DDIM


def test_offloading_and_compiling_call_the_library(kontext, monkeypatch):
    """Checks the calls only; neither runs here, without an accelerator."""
    from diffusers import FluxKontextInpaintPipeline, FluxTransformer2DModel

    calls = []
    for offload in ("model", "sequential"):
        method = f"enable_{offload}_cpu_offload"
        monkeypatch.setattr(
            FluxKontextInpaintPipeline, method, lambda self, device, _m=method: calls.append((_m, device))
        )
    monkeypatch.setattr(FluxTransformer2DModel, "compile_repeated_blocks", lambda self: calls.append("compiled"))
    for offload in ("model", "sequential"):
        generator = load_generator(settings(kontext, offload=offload, compile=offload == "model"))
        generator.to("meta")
    device = torch.device("meta")
    assert calls == ["compiled", ("enable_model_cpu_offload", device), ("enable_sequential_cpu_offload", device)]


def test_a_cancelled_edit_leaves_no_part_on_the_device(tiny_generator, monkeypatch):
    """Offloaded parts return to the CPU after a cancelled edit; pipelines themselves do this only at their end."""
    generator, freed = tiny_generator("FluxKontextInpaintPipeline"), []
    monkeypatch.setattr(type(generator.pipeline), "maybe_free_model_hooks", lambda self: freed.append(True))

    def stop(step, steps, preview):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propose(generator, watch=stop)
    assert freed == [True]


def low_rank(folder, updates):
    folder.mkdir(exist_ok=True)
    save_file(updates, folder / FILE)
    return str(folder)


@pytest.mark.parametrize("style", ["kohya", "peft"])
def test_a_low_rank_update_is_added_to_the_weights(tiny_inpaint_dir, tmp_path, style):
    """Compares with the sum computed by hand, for a linear layer, a 1 x 1 and a 3 x 3 convolution."""
    plain = load_generator(settings(tiny_inpaint_dir))
    before = {name: weight.clone() for name, weight in plain.denoiser.state_dict().items()}
    block = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    names = [block, "down_blocks.1.attentions.0.proj_in", "conv_in"]
    generator, updates, by_hand = torch.Generator().manual_seed(0), {}, {}
    for name in names:
        weight = before[f"{name}.weight"]
        down = torch.randn(2, *weight.shape[1:], generator=generator)
        up = torch.randn(weight.shape[0], 2, *[1] * (weight.ndim - 2), generator=generator)
        alpha = 0.5 if style == "kohya" else 2.0
        by_hand[f"{name}.weight"] = alpha / 2 * torch.einsum("or,r...->o...", up.flatten(1), down)
        if style == "kohya":
            key = "lora_unet_" + name.replace(".", "_")
            updates |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(0.5)}
        else:
            updates |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    added = load_generator(settings(tiny_inpaint_dir, lora=low_rank(tmp_path / "lora", updates)))
    for name, weight in added.denoiser.state_dict().items():
        torch.testing.assert_close(weight, before[name] + by_hand.get(name, 0))
    assert not torch.equal(propose(added), propose(plain))


def test_a_low_rank_update_of_another_model_is_refused(tiny_inpaint_dir, tmp_path):
    pair = {".lora_down.weight": torch.zeros(2, 7), ".lora_up.weight": torch.zeros(7, 2)}

    def load(key, keep=pair):
        path = low_rank(tmp_path / "lora", {key + ending: weight for ending, weight in keep.items()})
        load_generator(settings(tiny_inpaint_dir, lora=path))

    with pytest.raises(ValueError, match="^generator.lora: .* updates lora_unet_nothing, which StableDiffusionInpaint"):
        load("lora_unet_nothing")
    with pytest.raises(ValueError, match="^generator.lora: .* where the weight is"):
        load("lora_unet_conv_in")
    with pytest.raises(ValueError, match="^generator.lora: .* holds no low-rank updates"):
        load("weights", {".a": torch.zeros(1)})
    with pytest.raises(ValueError, match="^generator.lora: no pytorch_lora_weights.safetensors could be loaded from"):
        load_generator(settings(tiny_inpaint_dir, lora=str(tmp_path)))


def test_every_in_painting_configuration_is_valid_and_its_memory_is_documented():
    """The settings of each configuration can be combined, and its comment states the same memory as the docs page."""
    page = Path("docs/generators.md").read_text()
    found = 0
    for path in sorted(Path("configs").glob("edit_*.yaml")):
        if "name: diffusers_inpaint" not in path.read_text():
            continue
        found += 1
        config = load_config(EditConfig, path).generator
        _, how = inpaint_pipelines.require_pipeline(config)
        assert int(config.num_inference_steps * (config.strength or how.strength)) >= 1
        assert config.scheduler is None or config.pipeline == "StableDiffusionInpaintPipeline"
        text = " ".join(path.read_text().replace("#", " ").split())
        everything, largest = re.search(r"([\d.]+) GiB, with generator.offload model ([\d.]+) GiB", text).groups()
        row = next(line for line in page.splitlines() if line.startswith(f"| {path.stem.removeprefix('edit_')} |"))
        assert [cell.strip() for cell in row.split("|")[3:5]] == [everything, largest]
    assert found == 9
