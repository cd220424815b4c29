"""Scenes before rendering. Lengths are pixels of a 64-pixel picture; y points down."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

SIZE = 64
SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 50),
    "pink": (240, 110, 190),
    "cyan": (50, 200, 220),
}
TONES = {"gray": (128, 128, 128), "black": (35, 35, 38), "white": (222, 222, 218), "brown": (118, 84, 56)}
TEXTURES = ("plain", "striped", "checkered")
LOOKS = ("dark", "bright", "sepia", "greyscale", "moonlit")  # effects on the whole picture; most pictures have none
RADIUS = (6.0, 14.0)
SMALL, LARGE = 8.5, 11.0  # radius below / above which an object may be called small / large

# Pairs that no training sample shows, names or requests; evaluation reports them separately.
UNSEEN_PAIRS = frozenset({("pink", "triangle"), ("cyan", "cross"), ("yellow", "ring"), ("green", "square")})


@dataclass(frozen=True)
class Thing:
    """An object: a coloured shape. `shade` in [-1, 1] makes it a little darker or lighter."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    shade: float = 0.0

    @property
    def pair(self) -> tuple[str, str]:
        return (self.color, self.shape)

    @property
    def size_word(self) -> str:
        """`small`, `large`, or empty for radii in between."""
        return "small" if self.radius <= SMALL else "large" if self.radius >= LARGE else ""


@dataclass(frozen=True)
class Background:
    """Tone and texture; angle (radians), period (pixels) and phase (radians) position the texture."""

    tone: str
    texture: str
    angle: float = 0.0
    period: float = 18.0
    phase: float = 0.0


@dataclass(frozen=True)
class Scene:
    """The contents of a picture; `look` is one of LOOKS, or empty."""

    background: Background
    things: tuple[Thing, ...]
    look: str = ""

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> Scene:
        things = tuple(Thing(**thing) for thing in data["things"])
        return cls(Background(**data["background"]), things, data.get("look", ""))


def all_pairs(allow_unseen: bool) -> list[tuple[str, str]]:
    """Every (color, shape) that may occur."""
    return [(c, s) for c in COLORS for s in SHAPES if allow_unseen or (c, s) not in UNSEEN_PAIRS]


def sample_background(rng: np.random.Generator) -> Background:
    """A random tone and texture, and a random place of the texture."""
    return Background(
        tone=str(rng.choice(list(TONES))),
        texture=str(rng.choice(TEXTURES)),
        angle=float(rng.uniform(0, np.pi)),
        period=float(rng.uniform(14, 22)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def fits(x: float, y: float, radius: float, others: tuple[Thing, ...]) -> bool:
    """Whether an object at this place is inside the picture and clear of the others."""
    inside = radius <= x <= SIZE - radius and radius <= y <= SIZE - radius
    return inside and all(np.hypot(x - o.x, y - o.y) > radius + o.radius + 1.5 for o in others)


def place(rng: np.random.Generator, others: tuple[Thing, ...], low: float = RADIUS[0], high: float = RADIUS[1]):
    """A random (x, y, radius) clear of the others, or None if no room was found in 60 tries."""
    for attempt in range(60):
        radius = float(rng.uniform(low, max(low, high * (1 - attempt / 120))))
        x, y = (float(v) for v in rng.uniform(radius, SIZE - radius, 2))
        if fits(x, y, radius, others):
            return x, y, radius
    return None


def sample_scene(rng: np.random.Generator, allow_unseen: bool, things: int | None = None) -> Scene:
    """A random scene with one to four objects, or `things` of them; no two share both colour and shape.

    Four scenes in five have two objects or more, and six in ten of those have two that share a colour or a shape.
    """
    count = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.35, 0.28, 0.17])) if things is None else things
    pairs = all_pairs(allow_unseen)
    shared = count > 1 and rng.random() < 0.6
    placed: tuple[Thing, ...] = ()
    for index in range(count):
        free = [p for p in pairs if p not in {t.pair for t in placed}]
        if shared and index == 1:
            free = [p for p in free if p[0] == placed[0].color or p[1] == placed[0].shape] or free
        color, shape = free[int(rng.integers(len(free)))]
        spot = place(rng, placed, high=RADIUS[1] if count < 4 else 11.5)
        if spot is not None:
            placed += (Thing(shape, color, *spot, shade=float(rng.uniform(-1, 1))),)
    order = rng.permutation(len(placed))
    return Scene(sample_background(rng), tuple(placed[i] for i in order))
