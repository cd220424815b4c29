"""The shipped weights are few and small, and nothing in them can run code."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "checkpoints"
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
    import torch
    from safetensors.torch import load_file

    files = list((CHECKPOINTS / "microworld" / name).rglob("*.safetensors"))
    assert files
    for path in files:
        for key, tensor in load_file(path).items():
            assert torch.isfinite(tensor).all(), f"{path.name}: {key}"
