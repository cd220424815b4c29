"""Fixtures: folders with tiny random models of the real classes (tests/tiny_models.py), and infer.py with them."""

import os
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # tests read what commands print

import filter as filtering
import pytest
import torch
import yaml
from filter_config import FilterConfig

import infer
from regionedit.command_line import load_config
from regionedit.config import (
    GENERATOR_CONFIGS,
    AppConfig,
    DiffusersInpaintConfig,
    EditConfig,
    EncodersConfig,
    InstructPix2PixConfig,
    NextScaleConfig,
    RegionConfig,
    StableDiffusionConfig,
    TrainConfig,
)
from regionedit.generators import load_generator
from regionedit.generators.inpaint_pipelines import INPAINT_PIPELINES
from tests import tiny_models
from tests.pairs import SIZE, write_pairs
from tests.tiny_sams import write_sam


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models run slower on many threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def single_precision(monkeypatch):
    """`precision: auto` is float32 in tests, whatever the processor, so that their tolerances hold everywhere."""
    monkeypatch.setattr("regionedit.device.fast_bfloat16", lambda kind: False)


@pytest.fixture
def run_filter():
    """Marks a folder of shards by the shipped rules and changes to them."""

    def run(folder: Path, *changes: str):
        overrides = [f"--data={folder}", "--workers=1", *changes]
        return filtering.filter_shards(load_config(FilterConfig, "configs/filter.yaml", overrides))

    return run


def folder_of(write: Callable[..., Path], **options):
    """A session fixture: the folder of a tiny model."""

    @pytest.fixture(scope="session")
    def folder(tmp_path_factory) -> Path:
        return write(tmp_path_factory.mktemp("model"), **options)

    return folder


tiny_clip_dir = folder_of(tiny_models.write_clip)
tiny_judge_dir = folder_of(tiny_models.write_clip, seed=1, patch=16)
tiny_t5_dir = folder_of(tiny_models.write_t5)
tiny_inpaint_dir = folder_of(tiny_models.write_inpaint)
tiny_decoder_dir = folder_of(tiny_models.write_tiny_decoder)
tiny_dino_dir = folder_of(tiny_models.write_dino)
tiny_sam_dir = folder_of(write_sam)
tiny_ip2p_dir = folder_of(tiny_models.write_instruct_pix2pix)


@pytest.fixture(scope="session")
def tiny_generator_dir(tiny_inpaint_dir, tiny_ip2p_dir, tmp_path_factory):
    """A function that returns the folder of a generator, by its name in GENERATORS or INPAINT_PIPELINES."""
    from tests.tiny_pipelines import write_pipeline

    writers = {"masked_token": tiny_models.write_masked_token, "next_scale": tiny_models.write_next_scale}
    same = dict.fromkeys(("stable_diffusion", "diffusers_inpaint", "StableDiffusionInpaintPipeline"), tiny_inpaint_dir)
    written = {"instruct_pix2pix": tiny_ip2p_dir, **same}

    def folder(name: str) -> Path:
        if name not in written:
            write = writers.get(name, lambda place: write_pipeline(name, place))
            written[name] = write(tmp_path_factory.mktemp(name))
        return written[name]

    return folder


@pytest.fixture(scope="session")
def tiny_generator(tiny_generator_dir):
    """A function that returns a generator with other settings, by its name as above; the weights are loaded once."""
    loaded = {}

    def generator(name: str, **changes):
        config_class = GENERATOR_CONFIGS.get(name, DiffusersInpaintConfig)
        if config_class is not NextScaleConfig:
            changes = {"num_inference_steps": 3} | changes
        config = config_class(path=str(tiny_generator_dir(name)), **{"size": 32} | changes)
        if name not in loaded:
            loaded[name] = load_generator(config)
        return loaded[name].using(config)

    return generator


@pytest.fixture(scope="module")
def small_megapixel():
    """Qwen-Image-Edit always works at one megapixel, which takes minutes even here; this reduces it to 64 x 64."""
    import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_inpaint as module

    name = "QwenImageEditInpaintPipeline"
    with pytest.MonkeyPatch.context() as patch:
        theirs = module.calculate_dimensions
        patch.setattr(module, "calculate_dimensions", lambda area, ratio: theirs(64 * 64, ratio))
        patch.setitem(INPAINT_PIPELINES, name, replace(INPAINT_PIPELINES[name], area=64 * 64))
        yield


@pytest.fixture(scope="session")
def tiny_region_dir(tmp_path_factory) -> Path:
    """region_predictor/ folder of an untrained predictor that fits the tiny CLIP."""
    from regionedit.region_predictor import RegionPredictor

    folder = tmp_path_factory.mktemp("region")
    with tiny_models.seeded(0):
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


@pytest.fixture
def call(config_file):
    """Run infer.py with the tiny models; returns its exit code."""
    return lambda *arguments: infer.main(["--config", str(config_file), *map(str, arguments)])


@pytest.fixture
def refused(config_file, tmp_path, capsys):
    """Run infer.py, check that it wrote nothing but a log, and return its only line of output."""

    def run(*arguments, code=2) -> str:
        out = tmp_path / "out"
        try:
            got = infer.main(["--config", str(config_file), "--out", str(out), *map(str, arguments)])
        except SystemExit as stop:
            got = stop.code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert got == code and len(lines) == 1 and "Traceback" not in lines[0], lines
        left = [path.name for path in out.rglob("*")] if out.exists() else []
        assert left == (["log.txt"] if code == 1 else []) and (code == 2 or str(out / "log.txt") in lines[0])
        return lines[0]

    return run


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """Two shards of six captioned pictures, with stored proposals in a folder of their own."""
    return write_pairs(tmp_path_factory.mktemp("train"), proposals=True)


@pytest.fixture
def tiny_arguments(tmp_path, pairs, tiny_clip_dir, tiny_t5_dir, tiny_inpaint_dir) -> list[str]:
    """A small training configuration as on the command line."""
    return [
        f"--out={tmp_path / 'run'}", f"--encoders.clip=local-dir:{tiny_clip_dir}",
        f"--encoders.instruction={tiny_t5_dir}", f"--generator.path={tiny_inpaint_dir}",
        f"--generator.size={SIZE}", "--generator.num_inference_steps=2",
        f"--data.train={pairs}", "--data.validation=null",
        "--data.global_batch=4", f"--data.image_size={SIZE}", "--data.workers=0", "--max_steps=2",
        "--log.every_steps=1", "--trainer.accelerator=cpu", "--trainer.devices=1",
    ]  # fmt: skip


@pytest.fixture
def tiny_train(tiny_arguments):
    """The configuration with changes, given as on the command line."""
    return lambda *changes: load_config(TrainConfig, overrides=[*tiny_arguments, *changes])


@pytest.fixture(scope="module")
def loaded():
    """The frozen networks, loaded once for all steps of a file."""
    return []


@pytest.fixture
def module_of(loaded):
    """The training of a configuration, whose predictor starts with the same weights each time."""

    def build(config: TrainConfig):
        from regionedit.training import RegionTraining
        from regionedit.training.networks import load_frozen

        loaded[:] = loaded or [load_frozen(config)]
        torch.manual_seed(0)
        return RegionTraining(config, loaded[0])

    return build


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
