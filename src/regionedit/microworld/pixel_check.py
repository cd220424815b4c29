"""Reads objects, background and the success of an edit from pixels, without CLIP or any trained model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from regionedit.microworld.edits import Edit
from regionedit.microworld.renderer import render, silhouettes
from regionedit.microworld.scene import COLORS, LOOKS, SHAPES, SIZE, TEXTURES, TONES, Background, Scene, Thing
from regionedit.microworld.truth import truth_mask, valid_space

_NAMES = (*COLORS, *TONES)
_PALETTE = np.array([*COLORS.values(), *TONES.values()], np.float32)
SMALLEST = 18  # pixels; a smaller blob is a speck, not an object
AWAY = 40  # grey levels; a pixel that differs by more from the expected one is wrong


def label(picture: np.ndarray) -> np.ndarray:
    """Nearest palette entry of each pixel, int [64, 64]: colours first, then tones; chroma counts double."""
    pixels = picture.astype(np.float32)[:, :, None, :]
    luma = np.array([0.3, 0.59, 0.11], np.float32)
    grey, palette_grey = (pixels @ luma)[..., None], (_PALETTE @ luma)[:, None]
    chroma = ((pixels - grey) - (_PALETTE - palette_grey)) ** 2
    return (chroma.sum(-1) * 2 + (grey - palette_grey)[..., 0] ** 2).argmin(-1)


def best_shape(blob: np.ndarray) -> tuple[str, float, Thing]:
    """The shape whose silhouette fits a bool [64, 64] blob best, over radii: (shape, IoU, the fitted object)."""
    rows, columns = np.nonzero(blob)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    extent = {"circle": 1, "square": 0.86, "triangle": 0.93, "cross": 1, "ring": 1}
    candidates = []
    for shape in SHAPES:
        base = max(bottom - top, right - left) / 2 / extent[shape]
        lift = 0.0 if shape != "triangle" else 0.11
        for scale in (0.88, 0.96, 1.04, 1.12):
            r = base * scale
            candidates.append(Thing(shape, "red", (left + right) / 2, (top + bottom) / 2 + lift * r, r))
    masks = silhouettes(candidates) > 0.5
    iou = (masks & blob).sum((1, 2)) / np.maximum((masks | blob).sum((1, 2)), 1)
    index = int(iou.argmax())
    return candidates[index].shape, float(iou[index]), candidates[index]


def find_things(picture: np.ndarray) -> list[Thing]:
    """All objects in the pixels, uint8 [64, 64, 3], largest first."""
    labels = label(picture)
    found = []
    for index, color in enumerate(COLORS):
        blobs, count = ndimage.label(labels == index, structure=np.ones((3, 3)))
        for number in range(1, count + 1):
            blob = blobs == number
            if blob.sum() >= SMALLEST and ndimage.binary_erosion(blob).any():
                _, _, thing = best_shape(blob)
                found.append((int(blob.sum()), Thing(thing.shape, color, thing.x, thing.y, thing.radius)))
    return [thing for _, thing in sorted(found, key=lambda f: -f[0])]


def read_scene(picture: np.ndarray) -> Scene:
    """Objects and background, read from the pixels, uint8 [64, 64, 3]."""
    labels = label(picture)
    tones = labels >= len(COLORS)
    counts = np.bincount(labels[tones], minlength=len(_NAMES)) if tones.any() else np.zeros(len(_NAMES), int)
    tone = _NAMES[len(COLORS) + int(counts[len(COLORS) :].argmax())]
    return Scene(Background(tone, _texture(picture, tones)), tuple(find_things(picture)))


def _texture(picture: np.ndarray, ground: np.ndarray) -> str:
    """plain, striped or checkered, from the strongest frequencies of the background's grey levels."""
    inner = ndimage.binary_erosion(ground, iterations=3)
    if inner.sum() < 64:
        return "plain"
    grey = picture.astype(np.float32).mean(-1)
    wave = np.where(inner, grey - grey[inner].mean(), 0)
    if wave[inner].std() < 5:
        return "plain"
    power = np.abs(np.fft.fft2(wave * np.hanning(SIZE)[:, None] * np.hanning(SIZE), s=(128, 128))) ** 2
    power[:3, :3] = power[-2:, :3] = power[:3, -2:] = power[-2:, -2:] = 0
    first = np.unravel_index(power.argmax(), power.shape)
    total = power.max()
    for sign in (1, -1):  # stripes have one frequency and its mirror image; checkers have a second, crossing pair
        rows, columns = (np.arange(-6, 7) + sign * first[0]) % 128, (np.arange(-6, 7) + sign * first[1]) % 128
        power[np.ix_(rows, columns)] = 0
    return TEXTURES[2] if power.max() > 0.4 * total else TEXTURES[1]


def shows(picture: np.ndarray, color: str, shape: str, where: np.ndarray) -> Thing | None:
    """The object of this colour and shape with at least half of its pixels in `where`, bool [64, 64], or None."""
    blobs, count = ndimage.label(label(picture) == list(COLORS).index(color), structure=np.ones((3, 3)))
    for number in range(1, count + 1):
        blob = blobs == number
        if blob.sum() >= SMALLEST and (blob & where).sum() >= 0.5 * blob.sum():
            found, iou, thing = best_shape(blob)
            if found == shape and iou > 0.55:
                return thing
    return None


def _summary(picture: np.ndarray) -> tuple[str, str, list[tuple[str, str]]]:
    scene = read_scene(picture)
    return scene.background.tone, scene.background.texture, sorted(thing.pair for thing in scene.things)


def _away(picture: np.ndarray, expected: np.ndarray) -> float:
    """Share of the pixels that differ from the expected ones by more than AWAY in any channel."""
    return float((np.abs(expected.astype(np.int16) - picture).max(-1) > AWAY).mean())


def check(picture: np.ndarray, edit: Edit) -> bool:
    """Did the edit succeed, judging by the colour and shape of the pixels?

    replace, recolour: the new object is where the old one was. resize: the same, with less than 0.85 or more
    than 1.15 times the old radius. remove: at most a tenth of the old object's pixels still differ from the
    background's tone. add: the new object is in the requested relation to the anchor. background: most background
    pixels have the new tone, and their texture reads as the new one. global: the requested look is the nearest of all
    looks, and nine pixels in ten are as they should be. noop: at most one pixel in fifty has changed, and the objects
    and background read from the pixels are the same.
    """
    if edit.operation == "noop":
        source = render([edit.source])[0]
        return _away(picture, source) <= 0.02 and _summary(picture) == _summary(source)
    if edit.operation == "global":
        looks = ("", *LOOKS)
        rendered = render([replace(edit.target, look=look) for look in looks])
        nearest = int(((rendered.astype(np.float32) - picture) ** 2).mean((1, 2, 3)).argmin())
        return looks[nearest] == edit.target.look and _away(picture, rendered[nearest]) <= 0.1
    if edit.operation == "background":
        ground = truth_mask(edit) > 0.95
        wanted = list(_NAMES).index(edit.target.background.tone)
        right_tone = (label(picture)[ground] == wanted).mean() > 0.7
        return bool(right_tone) and _texture(picture, ground) == edit.target.background.texture
    if edit.operation == "remove":
        core = truth_mask(edit) > 0.5
        tone = list(_NAMES).index(edit.source.background.tone)
        return bool((label(picture)[core] == tone).mean() > 0.9)
    thing = edit.changed
    if edit.operation == "add":
        return shows(picture, thing.color, thing.shape, valid_space(edit)) is not None
    around = ndimage.binary_dilation(truth_mask(edit) > 0.25, iterations=3)
    found = shows(picture, thing.color, thing.shape, around)
    if edit.operation != "resize" or found is None:
        return found is not None
    ratio = found.radius / edit.source.things[edit.named].radius
    return ratio > 1.15 if thing.radius > edit.source.things[edit.named].radius else ratio < 0.85
