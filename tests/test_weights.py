"""The shipped weights are few and safe; broken ones are refused in one clear line that names the setting."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from regionedit.config import StableDiffusionConfig
from regionedit.encoders import FrozenCLIP, FrozenInstructionEncoder
from regionedit.generators import load_generator
from regionedit.mask_sources.learned import load_predictor
from regionedit.mask_sources.segmenter import load_segmenter
from tests.hostile_requests import one_clear_line

CHECKPOINTS = Path("checkpoints")
MIB = 1 << 20
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".msgpack", ".h5")


def test_weights_are_few_small_and_only_safetensors():
    sizes = {path: path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 64 * MIB
    assert [path for path, size in sizes.items() if size >= 15 * MIB or path.suffix in UNSAFE] == []


@pytest.mark.microworld
@pytest.mark.parametrize(
    "name",
    ["clip", "judge", "dino", "t5", "inpaint", "ip2p", "masked_token", "next_scale", "sam", "qwen", "region_predictor"],
)
def test_every_shipped_model_holds_finite_weights(name):
    files = list((CHECKPOINTS / "microworld" / name).rglob("*.safetensors"))
    assert files
    for path in files:
        for key, tensor in load_file(path).items():
            assert torch.isfinite(tensor).all(), f"{path.name}: {key}"


def without(weights: dict) -> dict:
    """The weights but for the last one, in alphabetical order."""
    return {name: weights[name] for name in sorted(weights)[:-1]}


def with_surplus(weights: dict) -> dict:
    return weights | {"evil.weight": torch.zeros(3)}


def of_another_shape(weights: dict) -> dict:
    name = max(weights)
    return weights | {name: torch.zeros(7, 7, 7)}


LOADERS = {
    "region_predictor/model.safetensors": (
        "region.checkpoint", lambda folder: load_predictor("region.checkpoint", str(folder)),
    ),
    "inpaint/unet/diffusion_pytorch_model.safetensors": (
        "generator.path", lambda folder: load_generator(StableDiffusionConfig(path=str(folder), dtype="float32")),
    ),
    "clip/open_clip_model.safetensors": ("encoders.clip", lambda folder: FrozenCLIP.load(f"local-dir:{folder}")),
    "sam/model.safetensors": ("region.sam", lambda folder: load_segmenter(str(folder))),
    "t5/model.safetensors": ("encoders.instruction", lambda folder: FrozenInstructionEncoder.load(str(folder))),
}  # fmt: skip


@pytest.mark.parametrize(
    "change", [without, with_surplus, of_another_shape, b"", b"{}", b"\xff" * 64, b"\x80\x04pickle"]
)
@pytest.mark.parametrize("file", LOADERS)
def test_broken_weights_are_refused(file, change, tmp_path):
    """A surplus weight must be refused as well, or change nothing: a random one never takes a missing one's place."""
    field, load = LOADERS[file]
    model = Path(file).parts[0]
    shutil.copytree(CHECKPOINTS / "microworld" / model, tmp_path / model)
    path = tmp_path / file
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        save_file(change(load_file(path)), path, {"format": "pt"})
    try:
        load(tmp_path / model)
    except ValueError as error:
        assert str(error).startswith(f"{field}: ")
        one_clear_line(str(error))
    else:
        assert change is with_surplus
