"""`crop.tone`: a generator's change of brightness, contrast or colour cast is undone, and nothing else is."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regionedit.config import CropConfig
from regionedit.images import to_pictures, to_tensor
from regionedit.records import Captions, EditRequest
from regionedit.results import changed_outside
from regionedit.seams import match_tone
from tests.stub_generators import stub_editor

SIZE = 96
BOX = (28, 30, 68, 64)
INSIDE = torch.zeros(SIZE, SIZE, dtype=torch.bool)
INSIDE[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
RIM = 16


def scene(seed: int, contrast: float = 0.08) -> torch.Tensor:
    """Soft random colours around grey, with grain, as 8 bits store them: [3, H, W]."""
    rng = np.random.default_rng(seed)
    values = gaussian_filter(rng.random((3, SIZE, SIZE)), (0, 4, 4))
    values = 0.5 + contrast * (values - values.mean()) / values.std() + rng.normal(0, 0.01, values.shape)
    return torch.from_numpy((values.clip(0, 1) * 255).round() / 255).float()


def truth(seed: int) -> torch.Tensor:
    """The picture as it should become: another scene in the region."""
    return torch.where(INSIDE, scene(seed + 100), scene(seed))


def cast(picture_CHW: torch.Tensor, scale, shift) -> torch.Tensor:
    scale, shift = (torch.tensor(values).expand(3)[:, None, None] for values in (scale, shift))
    return (picture_CHW * scale + shift).clamp(0, 1)


def edited(paint, seed: int = 0, **crop) -> torch.Tensor:
    editor = stub_editor(lambda images_BCHW: paint[None], crop=CropConfig(**crop))
    (picture,) = to_pictures(scene(seed)[None])
    result = editor.edit(EditRequest(picture, "x", captions=Captions("a", "b"), box=BOX))
    assert changed_outside(picture, result.image, result.mask) == 0
    return to_tensor([result.image])[0]


def seam(picture_CHW: torch.Tensor, true_CHW: torch.Tensor) -> float:
    """Mean step of the error across the region's border, in 8-bit levels."""
    error_CHW, steps = picture_CHW - true_CHW, []
    for axis in (0, 1):
        across = INSIDE.narrow(axis, 0, SIZE - 1) != INSIDE.narrow(axis, 1, SIZE - 1)
        step_CHW = error_CHW.narrow(axis + 1, 0, SIZE - 1) - error_CHW.narrow(axis + 1, 1, SIZE - 1)
        steps.append(step_CHW.abs().mean(0)[across])
    return 255 * float(torch.cat(steps).mean())


def wrong_inside(picture_CHW: torch.Tensor, true_CHW: torch.Tensor) -> float:
    return 255 * float((picture_CHW - true_CHW)[:, INSIDE].abs().mean())


CASTS = {
    "4 % brighter": (1.04, 0.0),
    "4 % darker": (0.96, 0.0),
    "4 % of white added": (1.0, 0.04),
    "less contrast": (0.9, 0.05),
    "warmer": ([1.04, 1.0, 0.95], [0.0, 0.01, 0.0]),
}


@pytest.mark.parametrize("name", CASTS)
def test_the_seam_and_the_error_inside_disappear(name):
    """To the rounding of eight bits; `match` alone keeps most of the error inside."""
    true_CHW = truth(0)
    painted_CHW = cast(true_CHW, *CASTS[name])
    before, after = edited(painted_CHW), edited(painted_CHW, tone=RIM)
    assert seam(before, true_CHW) > 1 and wrong_inside(before, true_CHW) > 1
    assert seam(after, true_CHW) < 0.3 and wrong_inside(after, true_CHW) < 0.3
    assert wrong_inside(edited(painted_CHW, match=8.0), true_CHW) > 3 * wrong_inside(after, true_CHW)


def test_it_works_in_windows_with_a_wider_mask_and_registered():
    """With `sample_grow`, the rim lies around the wider mask: in between, the generator has painted what it likes."""
    true_CHW = truth(0)
    painted_CHW = cast(true_CHW, 1.04, 0.0)
    near = INSIDE.clone()
    near[BOX[1] - 10 : BOX[3] + 10, BOX[0] - 10 : BOX[2] + 10] = True
    painted_CHW = torch.where(near & ~INSIDE, torch.tensor(0.7), painted_CHW)
    after = edited(painted_CHW, tone=RIM, sample_grow=10, register=True)
    assert wrong_inside(after, true_CHW) < 0.6
    assert wrong_inside(edited(painted_CHW, tone=6), true_CHW) > 2, "without it, the rim shows other content"


def test_content_that_changed_in_a_part_of_the_rim_does_not_count():
    true_CHW = truth(0)
    painted_CHW = cast(true_CHW, 1.04, 0.0)
    painted_CHW[:, BOX[1] - 8 : BOX[1], :] = 0.9
    assert wrong_inside(edited(painted_CHW, tone=RIM), true_CHW) < 0.6


@pytest.mark.parametrize(
    "painted_CHW",
    [
        scene(0),
        scene(7),
        scene(7, contrast=0.2) + 0.1,
        torch.zeros(3, SIZE, SIZE),
        torch.ones(3, SIZE, SIZE),
        torch.full((3, SIZE, SIZE), 0.9),
        (scene(0) + 0.02 * torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
    ],
    ids=["the source", "another scene", "another, brighter", "black", "white", "bright", "noise"],
)
def test_what_is_no_change_of_tone_stays_bit_for_bit(painted_CHW):
    assert torch.equal(match_tone(painted_CHW, scene(0), INSIDE, RIM), painted_CHW)


def test_without_a_rim_nothing_is_changed():
    brighter, everything = cast(scene(0), 1.04, 0.0), torch.ones(SIZE, SIZE)
    assert torch.equal(match_tone(brighter, scene(0), everything, RIM), brighter)
    assert torch.equal(match_tone(brighter, scene(0), torch.zeros(SIZE, SIZE), RIM), brighter)
    one_left = everything.clone()
    one_left[0, 0] = 0
    assert torch.equal(match_tone(brighter, scene(0), one_left, RIM), brighter)


def test_undefined_values_spoil_nothing_else():
    brighter = cast(truth(0), 1.04, 0.0)
    brighter[:, :10] = float("nan")
    after = match_tone(brighter, scene(0), INSIDE, 30)
    assert wrong_inside(after, truth(0)) < 0.6
