"""The download of the public models, tested without a network: pinned revisions, file patterns, the cache's layout."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from data_prep import fetch_models
from regionedit.command_line import load_config
from regionedit.config import EditConfig, TrainConfig
from regionedit.generators import load_generator

CLIP, T5, INPAINT, TAESD, IP2P = fetch_models.MODELS
PRESETS = sorted(Path("configs").glob("train_sd15_*.yaml"))
FOLLOWERS = ("foi", "mask_blend")


@pytest.mark.parametrize(
    ("config_class", "path"), [*((TrainConfig, path) for path in PRESETS), (EditConfig, "configs/edit_sd15.yaml")]
)
def test_the_configurations_name_what_is_fetched(config_class, path):
    import open_clip

    config = load_config(config_class, path)
    known = open_clip.get_pretrained_cfg(config.encoders.clip, config.encoders.clip_pretrained)
    assert known["hf_hub"].rstrip("/") == CLIP.name
    assert (config.encoders.instruction, config.encoders.instruction_revision) == (T5.name, T5.revision)
    assert (config.generator.path, config.generator.revision) == (INPAINT.name, INPAINT.revision)
    decoder = (config.generator.decoder, config.generator.decoder_revision)
    assert decoder in ((None, None), (TAESD.name, TAESD.revision))
    assert fnmatch(f"unet/diffusion_pytorch_model.{config.generator.variant}.safetensors", INPAINT.files[-2])


def test_instruct_pix2pix_is_fetched_for_every_configuration_that_names_it():
    attention = load_config(EditConfig, "configs/edit_sd15.yaml").region.attention
    for generator in (attention, *(load_config(EditConfig, f"configs/edit_{n}.yaml").generator for n in FOLLOWERS)):
        assert (generator.path, generator.revision) == (IP2P.name, IP2P.revision)


def test_no_file_that_could_run_code_is_fetched():
    for model in fetch_models.MODELS:
        assert len(model.revision) == 40
        for name in ("unet/diffusion_pytorch_model.bin", "pytorch_model.bin", "open_clip_pytorch_model.bin", "x.py"):
            assert not any(fnmatch(name, pattern) for pattern in model.files)


def cached(model: fetch_models.Pinned, cache: Path) -> Path:
    """The model's folder in a cache."""
    return cache / f"models--{model.name.replace('/', '--')}"


@pytest.fixture
def hub(monkeypatch):
    """A fake snapshot_download that creates the cache's layout with empty files."""

    def snapshot_download(name, revision, allow_patterns, cache_dir):
        folder = Path(cache_dir) / f"models--{name.replace('/', '--')}" / "snapshots" / revision
        folder.mkdir(parents=True)
        for pattern in allow_patterns:
            if "*" not in pattern:
                (folder / pattern).parent.mkdir(exist_ok=True)
                (folder / pattern).write_bytes(b"")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_open_clip_finds_the_pinned_weights_on_main(hub, tmp_path, capsys):
    fetch_models.main(["--cache", str(tmp_path)])
    found = huggingface_hub.try_to_load_from_cache(CLIP.name, "open_clip_model.safetensors", cache_dir=tmp_path)
    assert found == str(cached(CLIP, tmp_path) / "snapshots" / CLIP.revision / "open_clip_model.safetensors")
    printed = capsys.readouterr().out
    assert f"export HF_HUB_CACHE={tmp_path}" in printed and "OpenRAIL" in printed


def test_the_generator_loads_offline_from_what_is_fetched(tmp_path, monkeypatch, tiny_inpaint_dir):
    """Only half-precision safetensors are fetched, and not the safety checker that the public repository lists."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = cached(INPAINT, tmp_path) / "snapshots" / INPAINT.revision
    shutil.copytree(tiny_inpaint_dir, folder)
    for file in list(folder.rglob("*.safetensors")):
        weights = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(weights, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        file.unlink()
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    fetched = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    assert all(any(fnmatch(name, pattern) for pattern in INPAINT.files) for name in fetched), fetched
    generator = load_generator(load_config(TrainConfig, "configs/train_sd15_paper256.yaml").generator)
    assert generator.unet.dtype == torch.bfloat16 and len(generator.schedule) == 4


def test_an_existing_main_is_left_alone(hub, tmp_path):
    main = cached(CLIP, tmp_path) / "refs" / "main"
    main.parent.mkdir(parents=True)
    main.write_text("another")
    fetch_models.fetch(CLIP, tmp_path)
    assert main.read_text() == "another"


def test_no_network_is_one_line(monkeypatch, tmp_path, capsys):
    def snapshot_download(*arguments, **named):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(SystemExit) as stop:
        fetch_models.main(["--cache", str(tmp_path)])
    assert stop.value.code == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and CLIP.name in errors[0]
