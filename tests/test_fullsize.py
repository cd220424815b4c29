"""The public models at full size, with random weights: one training step and one edit, their time and peak memory.

The tests write models in the Hugging Face cache's layout to a temporary folder (about 4.5 GB). The shipped
configurations load them by the public names; only data, sizes and devices are overridden. They take minutes and are not
part of `make test`: run them with `make test-fullsize`.
"""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks import full_size_models
from data_prep.fetch_models import MODELS
from regionedit.images import png
from tests.hub_cache import snapshot
from tests.shards import write_instructions, write_tar
from tests.tiny_models import write_t5
from tests.tiny_tokenizers import clip_tokenizer

CLIP, T5, INPAINT, *_ = MODELS
LIMIT_GB = 20
SIZE = 256

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def write_clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    model = full_size_models.random_weights(full_size_models.clip_model, 0)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / CLIP.files[1])


def write_instruction_encoder(folder: Path) -> None:
    write_t5(folder)  # for its tokenizer
    full_size_models.random_weights(full_size_models.instruction_model, 1).save_pretrained(folder)


def write_inpaint(folder: Path) -> None:
    """Like the public repository: half-precision safetensors, PNDM scheduler, a listed but missing safety checker."""
    from diffusers import PNDMScheduler
    from transformers import CLIPImageProcessor

    with torch.device("meta"):
        names = list(full_size_models.inpaint_modules())
    for seed, name in enumerate(names):
        module = full_size_models.random_weights(lambda name=name: full_size_models.inpaint_modules()[name], 2 + seed)
        module.half().save_pretrained(folder / name, variant="fp16")
        del module
        gc.collect()
    settings = full_size_models.INPAINT_SCHEDULER | {"skip_prk_steps": True}
    PNDMScheduler.from_config(settings).save_pretrained(folder / "scheduler")
    CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionInpaintPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("hub")
    for model, write in ((CLIP, write_clip), (T5, write_instruction_encoder), (INPAINT, write_inpaint)):
        write(snapshot(cache, model.name, model.revision))
        gc.collect()
    return cache


def command(cache: Path, *arguments: str) -> tuple[float, float]:
    """Run one of the programs; returns its duration in seconds and its peak memory in gigabytes."""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("OMP_NUM_THREADS", None)
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.monotonic() - began, usage.ru_maxrss * 1024 / 1e9


def report(name: str, seconds: float, gigabytes: float) -> None:
    print(f"\n{name}: {seconds:.0f} s with loading, peak {gigabytes:.1f} GB")
    assert gigabytes < LIMIT_GB


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """The output folder of one optimiser step with configs/train_sd15_paper256.yaml."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(2)]
    keys = [f"{number:05d}" for number in range(2)]
    (folder / "pairs").mkdir()
    write_tar(
        folder / "pairs" / "00000.tar",
        [(k, {"png": png(p), "txt": b"a red circle", "json": b"{}"}) for k, p in zip(keys, pictures, strict=True)],
    )
    entries = [{"key": k, "instruction": "remove the circle", "target_caption": "a plain picture"} for k in keys]
    write_instructions(folder / "pairs" / "00000.instructions.jsonl", entries)
    seconds, gigabytes = command(
        cache, "train.py", "--config", "configs/train_sd15_paper256.yaml", f"--out={folder / 'run'}", "--max_steps=1",
        f"--data.train={folder / 'pairs'}", "--data.validation=null", "--data.global_batch=1", "--data.workers=0",
        "--generator.compile=false", "--encoders.compile=false", "--log.every_steps=1",
        "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto",
    )  # fmt: skip
    report(f"one optimiser step at {SIZE} px, batch 1", seconds, gigabytes)
    return folder / "run"


def test_one_optimiser_step(trained):
    losses = [line for line in (trained / "metrics.csv").read_text().splitlines() if "train/loss" in line]
    assert len(losses) == 1 and np.isfinite(float(losses[0].split(",")[2]))
    assert (trained / "checkpoints" / "last.ckpt").stat().st_size <= 120e6
    assert (trained / "region_predictor" / "model.safetensors").exists()


def test_one_edit(cache, trained, tmp_path):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (230, 317, 3), dtype=np.uint8))
    picture.save(tmp_path / "photo.png")
    seconds, gigabytes = command(
        cache, "infer.py", "--config", "configs/edit_sd15.yaml", f"--out={tmp_path / 'out'}",
        f"--image={tmp_path / 'photo.png'}", "--instruction=remove the circle", "--source_caption=a red circle",
        "--target_caption=a plain picture", f"--region.checkpoint={trained / 'region_predictor'}",
        "--generator.num_inference_steps=2", f"--generator.size={SIZE}", "--device=cpu",
    )  # fmt: skip
    report("one edit of 2 steps", seconds, gigabytes)
    result = np.asarray(Image.open(tmp_path / "out" / "result.png"))
    mask = np.asarray(Image.open(tmp_path / "out" / "mask.png").convert("L"))
    assert result.shape == (230, 317, 3)
    assert np.array_equal(result[mask == 0], np.asarray(picture)[mask == 0])
