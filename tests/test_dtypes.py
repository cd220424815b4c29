"""`precision: auto` becomes bfloat16 or float32 by what the processor can do; both kinds of processor are faked."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from regionedit import device
from regionedit.command_line import load_config
from regionedit.config import EditConfig, EncodersConfig, NextScaleConfig, StableDiffusionConfig, TrainConfig
from regionedit.dtypes import describe_dtypes, resolve_editing, resolve_training
from regionedit.editor import Editor
from regionedit.generators import load_generator
from regionedit.records import Captions, EditRequest


class FakeProcessor:
    """torch's and oneDNN's answers about an x86 processor."""

    def __init__(self, monkeypatch, onednn: bool, **able: bool):
        monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)


@pytest.fixture
def processor(monkeypatch):
    """Puts another processor in place of this one, after tests' own float32."""
    monkeypatch.undo()
    device.fast_bfloat16.cache_clear()
    yield lambda **able: FakeProcessor(monkeypatch, **able)
    device.fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("answers", "precision"),
    [
        ({"onednn": True, "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"onednn": True, "avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"onednn": False, "avx2": True}, "float32"),
        ({"onednn": False, "amx_bf16": True}, "float32"),  # ONEDNN_MAX_CPU_ISA=AVX2
    ],
)
def test_a_processor_decides(processor, answers, precision):
    processor(**answers)
    assert device.pick_dtype("auto", "cpu") == precision
    editing = resolve_editing(EditConfig(), "cpu")
    assert {editing.encoders.dtype, editing.generator.dtype, editing.region.attention.dtype} == {precision}
    training = resolve_training(TrainConfig(), "cpu")
    assert training.generator.dtype == precision
    assert training.encoders.dtype == "float32", "equation 8 compares small differences"
    assert describe_dtypes(editing, "cpu") == f"on cpu: generator in {precision}, encoders in {precision}"


@pytest.mark.parametrize("device_name", ["cuda", "cuda:3"])
def test_on_a_gpu_edits_are_in_half_precision_and_training_keeps_clip_in_float32(processor, monkeypatch, device_name):
    processor(onednn=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for name in ("edit_sd15", "edit_foi", "edit_mask_blend", "edit_microworld"):
        config = load_config(EditConfig, f"configs/{name}.yaml")
        on_gpu, on_cpu = (resolve_editing(config, where) for where in (device_name, "cpu"))
        for resolved, expected in ((on_gpu, "bfloat16"), (on_cpu, "float32")):
            assert {resolved.encoders.dtype, resolved.generator.dtype, resolved.region.attention.dtype} == {expected}
    training = resolve_training(TrainConfig(encoders=EncodersConfig(text_dtype="auto")), device_name)
    assert (training.generator.dtype, training.encoders.dtype, training.encoders.text_dtype) == (
        "bfloat16", "float32", "bfloat16",
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert describe_dtypes(training, device_name) == (
        f"on {device_name} (a GPU): generator in bfloat16, encoders in float32, texts in bfloat16"
    )


def test_a_gpu_decides_for_itself(processor, monkeypatch):
    processor(onednn=False)
    for able in (True, False):
        device.fast_bfloat16.cache_clear()
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert device.pick_dtype("auto", "cuda:1") == ("bfloat16" if able else "float32")


def test_what_is_asked_for_stays(processor):
    processor(onednn=True, amx_bf16=True)
    asked = EditConfig(encoders=EncodersConfig(dtype="float32"), generator=StableDiffusionConfig(dtype="float16"))
    resolved = resolve_editing(asked, "cpu")
    assert (resolved.encoders.dtype, resolved.generator.dtype) == ("float32", "float16")
    assert resolve_editing(resolved, "cpu") == resolved


def test_a_generator_that_has_one_precision_takes_it(processor):
    processor(onednn=True, amx_bf16=True)
    config = EditConfig(generator=NextScaleConfig())
    assert resolve_editing(config, "cpu").generator.dtype == "float32"


def test_weights_and_record_have_what_was_decided(processor, tiny_inpaint_dir, tmp_path):
    processor(onednn=True, amx_bf16=True)
    tiny = StableDiffusionConfig(path=str(tiny_inpaint_dir), size=32, num_inference_steps=1)
    assert load_generator(tiny).modules["unet"].dtype == torch.bfloat16
    editor = Editor(EditConfig(mask_source="everything", generator=tiny))
    request = EditRequest(Image.new("RGB", (32, 32)), "make it red", captions=Captions("a square", "a red square"))
    record = editor.edit(request).record
    assert record["settings"]["generator"]["dtype"] == "bfloat16"
    json.dumps(record)
    before = editor.digest(request)
    processor(onednn=False)
    device.fast_bfloat16.cache_clear()
    assert Editor(EditConfig(mask_source="everything", generator=tiny)).digest(request) != before


@pytest.mark.microworld
def test_results_hardly_depend_on_it():
    """Mean difference of the edited pictures below 2 % of the range, IoU of the regions above .9."""
    results = {}
    for precision in ("float32", "bfloat16"):
        config = load_config(EditConfig, "configs/edit_microworld.yaml")
        config.encoders.dtype = config.generator.dtype = precision
        request = EditRequest(Image.open("docs/examples/circle.png"), "make the circle blue")
        results[precision] = Editor(config).edit(request)
    first, second = (np.array(result.mask) > 127 for result in results.values())
    assert (first & second).sum() / (first | second).sum() > 0.9
    first, second = (np.array(result.image, np.float32) for result in results.values())
    assert np.abs(first - second).mean() / 255 < 0.02
