"""Session fixtures: folders with tiny random models of the real classes (tests/tiny_models.py)."""

from __future__ import annotations

import importlib
import os
from dataclasses import asdict, fields
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # tests read what commands print

import pytest
import torch
import yaml

from regionedit.command_line import load_config
from regionedit.config import (
    AppConfig,
    EditConfig,
    EncodersConfig,
    EvaluateConfig,
    InstructPix2PixConfig,
    RegionConfig,
    StableDiffusionConfig,
    TrainConfig,
)
from tests import tiny_models
from tests.pairs import SIZE, write_pairs
from tests.tiny_sams import write_sam

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "data_prep"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models run slower on many threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def single_precision(monkeypatch):
    """`precision: auto` is float32 in tests, whatever the processor, so that their tolerances hold everywhere."""
    monkeypatch.setattr("regionedit.device.fast_bfloat16", lambda kind: False)


@pytest.fixture
def script(monkeypatch):
    """Imports a module of data_prep, data_prep/microworld or experiments as the scripts there see each other."""
    for folder in (SCRIPTS, SCRIPTS / "microworld", ROOT / "experiments"):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


@pytest.fixture
def run_filter(script):
    """Marks a folder of shards by the shipped rules and changes to them."""
    config_class, module = script("filter_config").FilterConfig, script("filter")

    def run(folder: Path, *changes: str):
        overrides = [f"--data={folder}", "--workers=1", *changes]
        return module.filter_shards(load_config(config_class, ROOT / "configs/filter.yaml", overrides))

    return run


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory) -> Path:
    """open_clip local-dir: 32 px, patch 8, projection 32."""
    return tiny_models.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def tiny_judge_dir(tmp_path_factory) -> Path:
    """Another open_clip local-dir: another seed and patch size."""
    return tiny_models.write_clip(tmp_path_factory.mktemp("judge"), seed=1, patch=16)


@pytest.fixture(scope="session")
def tiny_t5_dir(tmp_path_factory) -> Path:
    """T5EncoderModel folder, width 32."""
    return tiny_models.write_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def tiny_inpaint_dir(tmp_path_factory) -> Path:
    """StableDiffusionInpaintPipeline folder, epsilon prediction, 32 px, latents 8x8."""
    return tiny_models.write_inpaint(tmp_path_factory.mktemp("inpaint"))


@pytest.fixture(scope="session")
def tiny_decoder_dir(tmp_path_factory) -> Path:
    """AutoencoderTiny folder for the tiny in-painter's latents."""
    return tiny_models.write_tiny_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session")
def tiny_dino_dir(tmp_path_factory) -> Path:
    """ViTModel folder, width 32."""
    return tiny_models.write_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="session")
def tiny_sam_dir(tmp_path_factory) -> Path:
    """SamModel folder, 32 px."""
    return write_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def tiny_ip2p_dir(tmp_path_factory) -> Path:
    """StableDiffusionInstructPix2PixPipeline folder, 32 px."""
    return tiny_models.write_instruct_pix2pix(tmp_path_factory.mktemp("ip2p"))


@pytest.fixture(scope="session")
def tiny_region_dir(tmp_path_factory) -> Path:
    """region_predictor/ folder of an untrained predictor that fits the tiny CLIP."""
    from regionedit.region_predictor import RegionPredictor

    folder = tmp_path_factory.mktemp("region")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RegionPredictor(dim=tiny_models.WIDTH, grid=tiny_models.GRID).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_edit_config(
    tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir, tiny_region_dir, tiny_sam_dir, tiny_ip2p_dir
) -> EditConfig:
    """An edit configuration of tiny models; change it with `dataclasses.replace`."""
    return EditConfig(
        device="cpu",
        encoders=EncodersConfig(clip=f"local-dir:{tiny_clip_dir}", instruction=str(tiny_t5_dir)),
        generator=StableDiffusionConfig(path=str(tiny_inpaint_dir), size=tiny_models.IMAGE_SIZE, num_inference_steps=2),
        region=RegionConfig(
            checkpoint=str(tiny_region_dir),
            sam=str(tiny_sam_dir),
            attention=InstructPix2PixConfig(
                path=str(tiny_ip2p_dir), size=32, num_inference_steps=2, attention_resolution=4
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_app_config(tiny_edit_config) -> AppConfig:
    """The same as a configuration of the page."""
    return AppConfig(**{field.name: getattr(tiny_edit_config, field.name) for field in fields(EditConfig)})


@pytest.fixture(scope="session")
def config_file(tiny_edit_config, tmp_path_factory) -> Path:
    """The tiny edit configuration as a YAML file."""
    path = tmp_path_factory.mktemp("config") / "edit.yaml"
    path.write_text(yaml.safe_dump(asdict(tiny_edit_config)))
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """Two shards of six captioned pictures, with stored proposals in a folder of their own."""
    return write_pairs(tmp_path_factory.mktemp("train"), proposals=True)


@pytest.fixture
def tiny_train(tmp_path, pairs, tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir):
    """A small training configuration; changes are given as on the command line."""

    def make(*changes: str) -> TrainConfig:
        base = [
            f"--out={tmp_path / 'run'}", f"--encoders.clip=local-dir:{tiny_clip_dir}",
            f"--encoders.instruction={tiny_t5_dir}", f"--generator.path={tiny_inpaint_dir}",
            f"--generator.size={SIZE}", "--generator.num_inference_steps=2",
            f"--data.train={pairs}", "--data.validation=null",
            "--data.global_batch=4", f"--data.image_size={SIZE}", "--data.workers=0", "--max_steps=2",
            "--log.every_steps=1", "--trainer.accelerator=cpu", "--trainer.devices=1",
        ]  # fmt: skip
        return load_config(TrainConfig, overrides=[*base, *changes])

    return make


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working folder where evaluations are compared, with a protocol of its own."""
    from tests.evaluation_folders import known_benchmarks

    return known_benchmarks(tmp_path, monkeypatch)


@pytest.fixture
def both(place) -> list[Path]:
    """Two evaluations by that protocol, `ours` and `theirs`."""
    from tests.evaluation_folders import A, B, evaluation

    return [evaluation(place / "ours", A), evaluation(place / "theirs", B)]


@pytest.fixture(scope="module")
def tiny_evaluate_config(
    tmp_path_factory, tiny_clip_dir, tiny_judge_dir, tiny_t5_dir, tiny_inpaint_dir, tiny_dino_dir, tiny_sam_dir
) -> EvaluateConfig:
    """A whole evaluation in small."""
    from tests.evaluations import evaluation_config

    folder = tmp_path_factory.mktemp("evaluation")
    return evaluation_config(
        folder, tiny_clip_dir, tiny_judge_dir, tiny_t5_dir, tiny_inpaint_dir, tiny_dino_dir, tiny_sam_dir
    )
