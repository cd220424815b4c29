"""Equation 8 under coarse matrix products: TF32 and bfloat16 are emulated by rounding what enters each product."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from regionedit import losses, masks
from regionedit.device import rounding
from regionedit.encoders import FrozenCLIP

PRODUCTS = {
    "mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
}  # fmt: skip
KEPT_BITS = {2.0**-11: 11, 2.0**-8: 8}  # of 24: TF32, bfloat16
PICTURES = ("ring", "cross", "circle", "square")
CAPTIONS = [f"a {name}" for name in PICTURES]


class Rounded(TorchDispatchMode):
    """Rounds every float32 tensor that enters a matrix product, forward and backward, to so many leading bits."""

    def __init__(self, bits: int):
        super().__init__()
        self.dropped = 24 - bits
        self.met: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in PRODUCTS:
            self.met.add(name)
            args = [self._round(value) for value in args]
        return function(*args, **(kwargs or {}))

    def _round(self, value):
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        bits, half = value.contiguous().view(torch.int32), 1 << (self.dropped - 1)
        to_even = (bits >> self.dropped) & 1
        return ((bits + half - 1 + to_even) & -(1 << self.dropped)).view(torch.float32)


def test_the_emulation_rounds_to_the_nearest():
    given = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, -3.14159265])
    assert Rounded(11)._round(given).tolist() == [1, 1 + 2**-9, 1 + 2**-10, -3.140625]
    assert torch.equal(Rounded(8)._round(given), given.bfloat16().float())


@pytest.fixture(scope="module")
def clip():
    return FrozenCLIP.load("local-dir:checkpoints/microworld/clip")


@pytest.fixture(scope="module")
def pictures(clip):
    opened = [Image.open(f"docs/examples/{name}.png").convert("RGB") for name in PICTURES]
    pictures_BCHW = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1).float() / 255 for p in opened])
    return clip.stretch(pictures_BCHW)


def probabilities(patches: int) -> torch.Tensor:
    """For every picture: the same probability everywhere, and in three patches of the middle; [B, N]."""
    rows = []
    for probability in (0.5, 0.1, 0.03, 0.01, 0.001, 0.0001):
        few_N = torch.zeros(patches)
        few_N[patches // 2 + 3 : patches // 2 + 6] = probability
        rows += [torch.full((patches,), probability), few_N]
    return torch.stack(rows).repeat_interleave(len(PICTURES), 0)


def pull(clip, pictures_BCHW, image_rounding: float) -> torch.Tensor:
    """The gradient of equation 8 with respect to P, [B, N]; every picture's proposal is the next picture."""
    probability_BN = probabilities(clip.grid**2).requires_grad_()
    times = len(probability_BN) // len(PICTURES)
    source_BCHW = pictures_BCHW.repeat(times, 1, 1, 1)
    proposal_BCHW = pictures_BCHW.roll(-1, 0).repeat(times, 1, 1, 1)
    mask_B1HW = masks.upsample(probability_BN, clip.grid, pictures_BCHW.shape[-2:])
    text_BD = clip.encode_text(CAPTIONS)
    with torch.no_grad():
        source_BD = clip.encode_image(source_BCHW).global_BD
    result_BD = clip.encode_image(masks.composite(proposal_BCHW, source_BCHW, mask_B1HW)).global_BD
    texts = text_BD.roll(-1, 0).repeat(times, 1), text_BD.repeat(times, 1)
    loss_B = losses.clip_direction(result_BD, source_BD, *texts, image_rounding)
    return torch.autograd.grad(loss_B.sum(), probability_BN)[0]


@pytest.mark.microworld
@pytest.mark.parametrize("unit", KEPT_BITS, ids=("TF32", "bfloat16"))
def test_no_gradient_is_dominated_by_rounding(clip, pictures, unit):
    """Beside float32's gradient, each has the same direction and length or is 0. With float32's limit some have not."""
    exact_BN = pull(clip, pictures, 0.0)
    with Rounded(KEPT_BITS[unit]) as rounded:
        guarded_BN, open_BN = pull(clip, pictures, unit), pull(clip, pictures, 0.0)
    assert {"convolution", "addmm", "mm", "convolution_backward"} <= rounded.met
    cosine_B = torch.cosine_similarity(open_BN, exact_BN)
    lengths_2B = torch.stack([exact_BN.norm(dim=1), open_BN.norm(dim=1)])
    ratio_B = lengths_2B.amin(0) / lengths_2B.amax(0).clamp(min=1e-30)
    pulls_B = (guarded_BN != 0).any(1)
    assert torch.equal(guarded_BN[pulls_B], open_BN[pulls_B]), "the limit only switches off"
    assert cosine_B[pulls_B].min() > 0.95 and ratio_B[pulls_B].min() > 0.75
    assert cosine_B[~pulls_B].min() < 0.7 and ratio_B[~pulls_B].min() < 0.1, "what the limit is for"
    assert pulls_B[: 4 * len(PICTURES)].float().mean() > 0.9, "regions that are not nearly empty still pull"


def test_the_precision_in_force_sets_the_limit(monkeypatch, clip):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    precision = torch.get_float32_matmul_precision()
    try:
        for able in (True, False):
            monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda able=able: able)
            torch.set_float32_matmul_precision("high")
            assert rounding(torch.float32, gpu) == (2.0**-11 if able else 2.0**-24)
            assert rounding(torch.bfloat16, gpu) == 2.0**-8 and rounding(torch.float32, cpu) == 2.0**-24
        monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: True)
        torch.set_float32_matmul_precision("highest")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
        assert rounding(torch.float32, gpu) == 2.0**-11, "convolutions have a switch of their own"
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        assert rounding(torch.float32, gpu) == 2.0**-24
    finally:
        torch.set_float32_matmul_precision(precision)
    assert (clip.image_rounding, clip.text_rounding) == (2.0**-24, 2.0**-24)


def test_a_step_uses_the_rounding_of_its_encoders(tiny_train, monkeypatch):
    """With a rounding as coarse as everything, equation 8 costs nothing, in chunks as well."""
    from regionedit.training import RegionTraining
    from tests.training_runs import batch_for

    config = tiny_train("--loss.alpha=0", "--loss.clip_guidance=0", "--loss.clip_structure=0", "--loss.area=0",
                        "--loss.entropy=0")  # fmt: skip
    module, batch = RegionTraining(config), batch_for(config)
    assert module.step(batch, 0).outputs.image_rounding == 2.0**-24
    for chunk in (0, 3):
        config.memory.chunk = chunk
        for unit in (2.0**-24, 10.0):
            monkeypatch.setattr(FrozenCLIP, "image_rounding", property(lambda _, unit=unit: unit))
            loss, _ = module.loss(module.step(batch, 0), config.loss)
            module.zero_grad()
            loss.backward()
            gradient = module.predictor.mlp[0].weight.grad
            assert (gradient is not None and bool(gradient.any())) == (unit < 1)
