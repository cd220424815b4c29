"""`trainer.deterministic`: two runs are equal bit for bit, and no step calls what a GPU cannot repeat."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from regionedit.generators.base import fit_soft_mask
from regionedit.resampling import fit, resample
from regionedit.training import train
from regionedit.training.micro_batches import local_gradient
from regionedit.training.module import RegionTraining
from tests.training_runs import batch_for

REFUSED = {
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward", "_upsample_bicubic2d_aa_backward", "upsample_trilinear3d_backward",
    "adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward",
    "avg_pool3d_backward", "max_pool3d_with_indices_backward", "fractional_max_pool2d_backward", "max_unpool2d",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "replication_pad2d_backward", "grid_sampler_2d_backward",
    "nll_loss_forward", "_ctc_loss_backward", "_embedding_bag_backward", "put_", "histc", "bincount", "median",
    "scatter_reduce", "scatter_reduce_", "kthvalue",
}  # fmt: skip
"""What torch.use_deterministic_algorithms refuses on a GPU, by its documentation; and antialiased interpolation, which
the documentation does not list apart."""

SIZES = ["--data.image_size=40", "--generator.size=32"]  # with CLIP's 32, so that all resizing happens
PATHS = {
    "composite": ["--step.proposal_mask=predicted_hard"],
    "latent": ["--step.proposal_mask=random_hard", "--memory.chunk=1"],
    "last_step": ["--step.proposal_mask=predicted"],
    "full": ["--step.proposal_mask=predicted"],
}


class Called(TorchDispatchMode):
    """The names of all operations, those of the backward pass too."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.split(".")[0])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("path", PATHS)
def test_no_step_calls_what_a_gpu_cannot_repeat(path, tiny_train):
    config = tiny_train(f"--step.gradient={path}", *PATHS[path], *SIZES)
    module, batch = RegionTraining(config), batch_for(config)
    with Called() as called:
        local_gradient(module, batch, config.loss, 0)
    assert any("nearest" in name and "backward" in name for name in called.names), "the backward pass was not seen"
    refused = called.names & REFUSED
    assert not refused


@pytest.mark.parametrize(("before", "after"), [((40, 40), (32, 32)), ((24, 37), (32, 20)), ((9, 8), (9, 30))])
def test_the_gradient_of_resampling_is_torchs(before, after):
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.rand(2, 3, *before, generator=generator).requires_grad_()
    weight_BChw = torch.rand(2, 3, *after, generator=generator)
    theirs = F.interpolate(images_BCHW, after, mode="bicubic", antialias=True).clamp(0, 1)
    ours = resample(images_BCHW, after)
    assert torch.equal(ours, theirs)
    expected, found = (torch.autograd.grad((made * weight_BChw).sum(), images_BCHW)[0] for made in (theirs, ours))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [32, 20])
def test_the_gradient_of_a_fitted_mask_is_that_of_the_pooling(size):
    mask_B1HW = torch.rand(2, 1, 32, 26, generator=torch.Generator().manual_seed(0)).requires_grad_()
    fitted, placement = fit(torch.zeros(2, 3, 32, 26), size, 4)
    inner = placement.inner_height, placement.inner_width
    ours = fit_soft_mask(mask_B1HW, placement, fitted)[..., : inner[0], : inner[1]]
    theirs = F.adaptive_max_pool2d(mask_B1HW, inner)
    assert torch.equal(ours, theirs)
    first, second = (torch.autograd.grad(made.square().sum(), mask_B1HW)[0] for made in (ours, theirs))
    assert torch.equal(first, second)


def test_two_runs_are_equal_bit_for_bit(tiny_train, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "unset")  # and so again after the test
    changes = ["--step.gradient=last_step", "--step.proposal_mask=predicted", *SIZES, "--trainer.deterministic=true"]
    try:
        runs = [Path(train(tiny_train(*changes, f"--out={tmp_path / name}"))) for name in ("one", "two")]
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8", "cuBLAS reads it when it starts"
    finally:
        torch.use_deterministic_algorithms(False)
    first, second = ((run / "model.safetensors").read_bytes() for run in runs)
    assert first == second
