"""A generator that shifts or zooms the picture: its output is moved back onto the source, if that helps."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from regionedit.config import CropConfig
from regionedit.images import to_pictures, to_tensor
from regionedit.records import Captions, EditRequest
from regionedit.registration import Motion, registered
from regionedit.results import changed_outside
from tests.stub_generators import stub_editor

SIZE, ROOM = 96, 16
BOX = (8, 16, 40, 40)


def scene(seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Soft random colours, [3, H, W] in [0, 1], with `ROOM` more pixels on every side."""
    rng = np.random.default_rng(seed)
    values = gaussian_filter(rng.random((3, size + 2 * ROOM, size + 2 * ROOM)), (0, 2, 2))
    return (values - values.min()) / (values.max() - values.min())


def moved(around: np.ndarray, motion: Motion) -> np.ndarray:
    """What a generator shows that moves the scene in this way, at the source's size."""
    size = around.shape[1] - 2 * ROOM
    middle, offset = (size - 1) / 2, np.array([motion.down, motion.right]).reshape(2, 1, 1)
    seen = (np.indices((size, size)) - middle - offset) / motion.zoom + middle + ROOM
    return np.stack([map_coordinates(band, seen, order=3) for band in around]).clip(0, 1)


def tensors(seed: int, motion: Motion):
    """Edited picture, source and mask: the generator painted another scene into the mask, and moved everything."""
    around = scene(seed)
    source = around[:, ROOM:-ROOM, ROOM:-ROOM]
    x0, y0, x1, y1 = BOX
    inside = (slice(None), slice(ROOM + y0, ROOM + y1), slice(ROOM + x0, ROOM + x1))
    painted = around.copy()
    painted[inside] = 1 - scene(seed + 100)[inside]
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., y0:y1, x0:x1] = 1
    return *(torch.from_numpy(one)[None].float() for one in (moved(painted, motion), source)), mask


MOTIONS = {
    "3 px to the right": Motion(0, 3),
    "3 px up and 2 to the left": Motion(-3, -2),
    "one and a half pixels": Motion(1.5, 0),
    "1 % larger": Motion(zoom=1.01),
    "1 % smaller": Motion(zoom=0.99),
    "1 % larger and shifted": Motion(2, -1.25, 1.01),
}


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("error", [0.0, 0.03], ids=["exact", "with errors"])
def test_a_motion_is_found_and_undone(name, error):
    """`error`: how far the generator's colours are wrong, and its grain."""
    edited, source, mask = tensors(1, MOTIONS[name])
    grain = torch.randn(edited.shape, generator=torch.Generator().manual_seed(0))
    edited = ((1 - 2 * error) * edited + error + error * grain).clamp(0, 1)
    back, (motion,) = registered(edited, source, mask)
    wanted = MOTIONS[name]
    assert motion.down == pytest.approx(wanted.down, abs=0.1) and motion.right == pytest.approx(wanted.right, abs=0.1)
    assert motion.zoom == pytest.approx(wanted.zoom, abs=0.001)
    inner = mask[0, 0] == 0
    inner[:6] = inner[-6:] = inner[:, :6] = inner[:, -6:] = False
    before, after = ((one - source).abs()[..., inner].mean() for one in (edited, back))
    assert after < before / (1 if error else 3) and torch.equal(back, back.clamp(0, 1))


def test_whole_pixels_are_undone_without_resampling():
    edited, source, mask = tensors(2, Motion(0, 3))
    back, (motion,) = registered(edited, source, mask)
    assert motion == Motion(0, 3) and torch.allclose(back[..., :-3], edited[..., 3:], atol=1e-5)
    assert "(+3.0, +0.0) px; this was undone" in str(motion)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


STILL = tensors(4, Motion())
LEFT_AS_THEY_ARE = {
    "nothing moved": STILL,
    "less than can be seen": tensors(4, Motion(0.1, 0.1)),
    "another picture": (noise(1, 3, SIZE, SIZE), STILL[1], STILL[2]),
    "everything is masked": (tensors(4, Motion(0, 3))[0], STILL[1], torch.ones(1, 1, SIZE, SIZE)),
    "one colour": (torch.full((1, 3, SIZE, SIZE), 0.4), torch.full((1, 3, SIZE, SIZE), 0.5), STILL[2]),
    "a few pixels": (noise(1, 3, 3, 5), noise(1, 3, 3, 5), torch.zeros(1, 1, 3, 5)),
    "only colours changed": (STILL[0] * 0.8, STILL[1], STILL[2]),
    "farther than is plausible": tensors(4, Motion(0, 14)),
}


@pytest.mark.parametrize("name", LEFT_AS_THEY_ARE)
def test_what_cannot_be_improved_stays_as_it_is_bit_for_bit(name):
    edited, source, mask = LEFT_AS_THEY_ARE[name]
    back, motions = registered(edited, source, mask)
    assert torch.equal(back, edited) and motions == [None]


def test_each_picture_of_a_batch_has_its_own_motion():
    rows = [tensors(5, Motion(0, 3)), tensors(6, Motion()), tensors(7, Motion(zoom=1.01))]
    together, motions = registered(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
    alone = [registered(*row) for row in rows]
    assert torch.equal(together, torch.cat([back for back, _ in alone]))
    assert motions == [motion for _, (motion,) in alone] and [bool(one) for one in motions] == [True, False, True]


def editor(motion: Motion, **crop):
    """An editor whose generator repaints the whole picture and moves it."""
    painted = tensors(8, motion)[0]
    return stub_editor(lambda images: painted.expand(len(images), -1, -1, -1), crop=CropConfig(**crop))


def request() -> EditRequest:
    _, source, mask = tensors(8, Motion())
    (picture,), (drawn,) = to_pictures(source), to_pictures(mask)
    return EditRequest(picture, "x", captions=Captions("a", "b"), mask=drawn, seed=1)


@pytest.mark.parametrize("motion", [Motion(0, 3), Motion(zoom=1.01)], ids=["shift", "zoom"])
def test_the_editor_puts_the_edit_where_the_mask_is(motion):
    asked = request()
    right = editor(Motion()).edit(asked)
    wrong, corrected = editor(motion).edit(asked), editor(motion, register=True).edit(asked)
    error = [np.abs(np.asarray(one.image, int) - np.asarray(right.image)).mean() for one in (wrong, corrected)]
    assert error[1] < error[0] / 3, error
    assert changed_outside(asked.image, corrected.image, corrected.mask) == 0
    assert "the generator moved the picture by" in corrected.note and corrected.note in corrected.record["note"]
    assert "moved" not in wrong.note


def test_off_nothing_is_registered(monkeypatch):
    asked = request()
    monkeypatch.setattr("regionedit.crop_and_stitch.registered", None)  # a call would fail
    result = editor(Motion(0, 3)).edit(asked)
    edited = to_tensor([result.image])[0][:, BOX[1] : BOX[3], BOX[0] : BOX[2]]
    raw = tensors(8, Motion(0, 3))[0][0][:, BOX[1] : BOX[3], BOX[0] : BOX[2]]
    assert torch.equal((edited * 255).round(), (raw * 255).round())
