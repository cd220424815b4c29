"""Renders many scenes at once, with anti-aliased signed-distance functions.

Shape letters: B scenes, K objects, H W pixels (64).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regionedit.microworld.scene import COLORS, LOOKS, SIZE, TONES, Background, Scene, Thing

SOFTNESS = 1.5  # pixels over which an edge fades
TEXTURE_CONTRAST = 14.0  # grey levels by which a texture lightens and darkens its tone

_LUMA = np.array([0.3, 0.59, 0.11], np.float32)
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


def _box(x, y, half_x, half_y):
    return np.maximum(np.abs(x) - half_x, np.abs(y) - half_y)


def _distance(shape: str, x, y, r):
    """Signed distance in pixels (negative inside) of points x, y from a shape of radius r at the origin."""
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "square":
        return _box(x, y, 0.86 * r, 0.86 * r)
    if shape == "triangle":  # equilateral, point up; three half-planes around a centre a little below the middle
        y = y - 0.2 * r
        return np.maximum(np.abs(x) * 0.8660254 - y * 0.5, y) - 0.575 * r
    if shape == "cross":
        return np.minimum(_box(x, y, r, 0.34 * r), _box(x, y, 0.34 * r, r))
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.73 * r) - 0.27 * r
    raise ValueError(f"shape: {shape!r} is not one of circle, square, triangle, cross, ring")


def silhouettes(things: Sequence[Thing]) -> np.ndarray:
    """Coverage of each object alone, float32 [K, 64, 64] in [0, 1]."""
    out = np.zeros((len(things), SIZE, SIZE), np.float32)
    for shape in {t.shape for t in things}:
        rows = [k for k, t in enumerate(things) if t.shape == shape]
        x, y, r = (
            np.array([getattr(things[k], name) for k in rows], np.float32)[:, None, None]
            for name in ("x", "y", "radius")
        )
        out[rows] = np.clip(0.5 - _distance(shape, _X - x, _Y - y, r) / SOFTNESS, 0, 1)
    return out


def coverage(scene: Scene) -> np.ndarray:
    """Visible coverage of each object, float32 [K, 64, 64]; later objects would hide earlier ones (none overlap)."""
    alone = silhouettes(scene.things)
    visible = np.ones((SIZE, SIZE), np.float32)
    for k in range(len(alone) - 1, -1, -1):
        alone[k], visible = alone[k] * visible, visible * (1 - alone[k])
    return alone


def _background(background: Background) -> np.ndarray:
    """float32 [64, 64, 3] in [0, 255]."""
    tone = np.array(TONES[background.tone], np.float32)
    if background.texture == "plain":
        return np.broadcast_to(tone, (SIZE, SIZE, 3))
    cos, sin = np.cos(background.angle), np.sin(background.angle)
    turn = 2 * np.pi / background.period
    wave = np.sin((_X * cos + _Y * sin) * turn + background.phase)
    if background.texture == "checkered":
        wave = wave * np.sin((_Y * cos - _X * sin) * turn + background.phase)
    wave = np.clip(wave * 2, -1, 1).astype(np.float32)
    return tone + TEXTURE_CONTRAST * wave[..., None]


def with_look(picture: np.ndarray, look: str) -> np.ndarray:
    """A picture [..., 3] in [0, 255], float32, with one of LOOKS applied; an empty look changes nothing.

    Raises:
        ValueError: unknown look.
    """
    if look == "":
        return picture
    grey = (picture @ _LUMA)[..., None]
    if look == "dark":
        return 0.45 * picture
    if look == "bright":
        return 255 - 0.5 * (255 - picture)
    if look == "greyscale":
        return np.broadcast_to(grey, picture.shape)
    if look == "sepia":
        return grey * np.array([1.08, 0.86, 0.62], np.float32)
    if look == "moonlit":
        return (0.4 * picture + 0.6 * grey) * np.array([0.4, 0.5, 0.8], np.float32)
    raise ValueError(f"look: {look!r} is not one of {', '.join(LOOKS)}")


def render(scenes: Sequence[Scene]) -> np.ndarray:
    """Pictures, uint8 [B, 64, 64, 3]."""
    pictures = np.stack([_background(s.background) for s in scenes])
    things = [t for s in scenes for t in s.things]
    alphas = silhouettes(things)
    start = 0
    for b, scene in enumerate(scenes):
        for k, thing in enumerate(scene.things):
            alpha = alphas[start + k][..., None]
            color = np.array(COLORS[thing.color], np.float32) * (1 + 0.08 * thing.shade)
            pictures[b] = pictures[b] * (1 - alpha) + color * alpha
        pictures[b] = with_look(pictures[b], scene.look)
        start += len(scene.things)
    return np.clip(pictures + 0.5, 0, 255).astype(np.uint8)
