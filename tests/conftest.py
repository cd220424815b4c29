"""Session fixtures: folders with tiny random models of the real classes (tests/tiny_models.py)."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from tests import tiny_models


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models run slower on many threads than on one."""
    torch.set_num_threads(1)


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
def tiny_dino_dir(tmp_path_factory) -> Path:
    """ViTModel folder, width 32."""
    return tiny_models.write_dino(tmp_path_factory.mktemp("dino"))
