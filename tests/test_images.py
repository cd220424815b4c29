"""Pictures: opening any format, exact round trips, fitting and back, drawing on them."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regionedit import display, images, resampling


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(tmp_path, name: str, picture: Image.Image, **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


@given(width=st.integers(1, 40), height=st.integers(1, 40), count=st.integers(1, 3), channels=st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_bytes_survive_the_round_trip(width, height, count, channels):
    pictures = [Image.fromarray(noise(width, height, channels, seed=i)) for i in range(count)]
    tensor = images.to_tensor(pictures)
    assert tensor.shape == (count, channels, height, width) and tensor.dtype == torch.float32
    back = images.to_pictures(tensor)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(pictures, back, strict=True))


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        images.to_tensor([Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))])


@given(
    width=st.integers(1, 90), height=st.integers(1, 90), size=st.sampled_from([0, 16, 64]), multiple=st.integers(1, 16)
)
@settings(max_examples=40, deadline=None)
def test_fit_and_back_keeps_the_size(width, height, size, multiple):
    picture = torch.rand(1, 3, height, width)
    fitted, placed = resampling.fit(picture, size, multiple)
    assert fitted.shape[-2] % multiple == 0 and fitted.shape[-1] % multiple == 0
    if size:
        assert max(placed.inner_height, placed.inner_width) == size
    assert resampling.unfit(fitted, placed).shape == picture.shape
    mask = (torch.rand(1, 1, height, width) > 0.9).float()
    small = resampling.fit_mask(mask, placed, tuple(fitted.shape[-2:]))
    assert small.shape[-2:] == fitted.shape[-2:]
    assert bool(small.any()) == bool(mask.any())


def test_a_picture_that_fits_is_not_resampled():
    picture = torch.rand(1, 3, 64, 48)
    fitted, placed = resampling.fit(picture, 64, 8)
    assert torch.equal(fitted, picture) and torch.equal(resampling.unfit(fitted, placed), picture)


def test_padding_repeats_the_border_and_is_cut_off_again():
    picture = torch.rand(1, 3, 5, 7)
    fitted, placed = resampling.fit(picture, 0, 4)
    assert fitted.shape == (1, 3, 8, 8)
    assert torch.equal(fitted[..., :5, 7], picture[..., -1])
    assert torch.equal(resampling.unfit(fitted, placed), picture)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    grey = noise(9, 6, 1)
    numeric = {
        "I;16": grey.astype(np.uint16) * 257,
        "I": grey.astype(np.int32) * 257,
        "F": grey.astype(np.float32) / 255,
    }
    picture = Image.fromarray(numeric[mode]) if mode in numeric else Image.fromarray(noise(9, 6)).convert(mode)
    rgb = images.upright_rgb(picture)
    assert rgb.mode == "RGB" and rgb.size == (9, 6)
    if mode in numeric:
        assert np.array_equal(np.asarray(rgb)[..., 0], grey)
        assert "8 bits" in rgb.info["notes"][0]


def test_values_that_cannot_be_shown_are_refused():
    with pytest.raises(ValueError, match="rescale"):
        images.upright_rgb(Image.fromarray(np.full((2, 2), 1e6, np.float32)))


def test_transparency_is_flattened_onto_white_and_noted(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (10, 20, 30, 255)
    picture = images.open_picture(save(tmp_path, "a.png", Image.fromarray(pixels)))
    assert picture.getpixel((0, 0)) == (10, 20, 30) and picture.getpixel((3, 0)) == (255, 255, 255)
    assert any("white" in note for note in picture.info["notes"])
    opaque = images.open_picture(save(tmp_path, "b.png", Image.new("RGBA", (3, 3), (1, 2, 3, 255))))
    assert opaque.info["notes"] == []
    palette = Image.fromarray(noise(8, 8)).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    assert images.open_picture(save(tmp_path, "p.png", palette, transparency=0)).info["notes"]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "blue")]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    picture = images.open_picture(path)
    assert picture.getpixel((0, 0)) == (255, 0, 0) and "first frame" in picture.info["notes"][0]


def test_the_colour_profile_is_kept(tmp_path):
    path = save(tmp_path, "p.png", Image.fromarray(noise(4, 4)), icc_profile=b"profile")
    written = images.png(images.open_picture(path))
    assert Image.open(io.BytesIO(written)).info["icc_profile"] == b"profile"


def test_a_file_without_permission(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path, "a.png", Image.new("RGB", (4, 4)))
    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read: Permission denied"):
        images.open_picture(path)


def test_overlay_tints_the_region_and_nothing_else():
    picture = Image.fromarray(noise(40, 30))
    mask = Image.new("L", (40, 30))
    mask.paste(255, (10, 10, 30, 20))
    shown = np.asarray(display.overlay(picture, mask))
    same = (shown == np.asarray(picture)).all(-1)
    assert same[np.asarray(mask) == 0].all() and not same[np.asarray(mask) > 0].any()
    assert tuple(shown[10, 10]) == display.TINT
    assert np.array_equal(np.asarray(display.overlay(picture, Image.new("L", (40, 30)))), np.asarray(picture))


def test_grid_places_every_picture():
    cell = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue", "black")]
    sheet = display.grid([cell[:2], cell[2:]], header=("a", "b"), cell=16)
    assert sheet.size == (2 * 20 + 4, 2 * 20 + 4 + 16)
    assert sheet.getpixel((12, 16 + 12)) == (255, 0, 0) and sheet.getpixel((32, 16 + 32)) == (0, 0, 0)


def test_a_known_format_of_a_rare_kind_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(4))
    with pytest.raises(
        ValueError, match="a.tif: a TIFF that cannot be read: damaged or of a rare kind; save it as a PNG"
    ):
        images.decode(tmp_path / "a.tif", 10)
