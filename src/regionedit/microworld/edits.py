"""Edits with ground truth (texts, scenes before and after), and similar scenes as hard negatives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from regionedit.microworld.grammar import NOOP_KINDS, OPERATIONS, PHRASINGS, RELATIONS, caption_in_style, sample_style
from regionedit.microworld.scene import (
    LARGE,
    LOOKS,
    RADIUS,
    SMALL,
    UNSEEN_PAIRS,
    Scene,
    Thing,
    all_pairs,
    fits,
    place,
    sample_background,
)


@dataclass(frozen=True)
class Edit:
    """An edit and its ground truth. Training reads only the instruction, the two captions and the source picture.

    Args:
        named: index of the edited object in `source`; None for add, background, global and noop.
        added: index of the new object in `target` for add.
        anchor, relation: for add, the object in `source` that the instruction refers to, and where the new one is.
        unseen_pair: the instruction names or requests a colour-shape pair that training never shows.
    """

    operation: str
    instruction: str
    source_caption: str
    target_caption: str
    source: Scene
    target: Scene
    named: int | None = None
    added: int | None = None
    anchor: int | None = None
    relation: str | None = None
    unseen_pair: bool = False
    unseen_phrasing: bool = False

    @property
    def changed(self) -> Thing | None:
        """The object that the result must show: the new, replaced, recoloured or resized one."""
        if self.operation == "add":
            return self.target.things[self.added]
        if self.operation in ("replace", "recolour", "resize"):
            return self.target.things[self.named]
        return None

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> Edit:
        scenes = {name: Scene.from_json(data[name]) for name in ("source", "target")}
        return cls(**(data | scenes))


def _name(scene: Scene, index: int, rng: np.random.Generator) -> str:
    """Colour and shape; sometimes only the shape, if no other object has it."""
    thing = scene.things[index]
    alone = sum(t.shape == thing.shape for t in scene.things) == 1
    return thing.shape if alone and rng.random() < 0.12 else f"{thing.color} {thing.shape}"


def _free_pair(scene: Scene, rng: np.random.Generator, allow_unseen: bool, keep) -> tuple[str, str] | None:
    """A random pair that passes `keep` and that no object of the scene has."""
    taken = {t.pair for t in scene.things}
    free = [p for p in all_pairs(allow_unseen) if p not in taken and keep(p)]
    return free[int(rng.integers(len(free)))] if free else None


def _with_thing(scene: Scene, index: int, **changes) -> Scene:
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def sample_edit(
    scene: Scene,
    rng: np.random.Generator,
    operation: str | None = None,
    unseen_phrasing: bool = False,
    allow_unseen: bool = True,
) -> Edit | None:
    """A random edit of the scene, or None if this operation is impossible (no room to add, nothing to resize)."""
    operation = operation or OPERATIONS[int(rng.integers(len(OPERATIONS)))]
    style = sample_style(scene, rng, ground=operation == "background")
    words: dict[str, str] = {}
    kind = operation
    named = added = anchor = relation = None
    involved: list[tuple[str, str]] = []  # pairs that the instruction names but the edit does not change
    hidden: frozenset[int] = frozenset()
    target_style = style
    if not scene.things:
        return None
    pick = int(rng.integers(len(scene.things)))
    thing = scene.things[pick]

    if operation == "replace":
        pair = _free_pair(scene, rng, allow_unseen, lambda p: p[1] != thing.shape)
        named, target = pick, _with_thing(scene, pick, color=pair[0], shape=pair[1])
        words = {"a": _name(scene, pick, rng), "b": f"{pair[0]} {pair[1]}"}
    elif operation == "recolour":
        pair = _free_pair(scene, rng, allow_unseen, lambda p: p[1] == thing.shape and p[0] != thing.color)
        if pair is None:
            return None
        named, target = pick, _with_thing(scene, pick, color=pair[0])
        words = {"a": _name(scene, pick, rng), "c": pair[0]}
    elif operation == "resize":
        kind = "enlarge" if thing.size_word == "small" else "shrink"
        named, target = pick, _resized(scene, pick, rng)
        if target is None:
            return None
        style = target_style = replace(style, sized=style.sized | {pick})
        words = {"a": _name(scene, pick, rng)}
    elif operation == "remove":
        named, hidden = pick, frozenset({pick})
        target = replace(scene, things=tuple(t for i, t in enumerate(scene.things) if i != pick))
        words = {"a": _name(scene, pick, rng)}
    elif operation == "add":
        pair = _free_pair(scene, rng, allow_unseen, lambda p: True)
        relation = str(rng.choice(list(RELATIONS)))
        spot = _beside(scene, thing, relation, rng)
        if spot is None:
            return None
        anchor, added = pick, len(scene.things)
        new = Thing(pair[1], pair[0], *spot, shade=float(rng.uniform(-1, 1)))
        target = replace(scene, things=(*scene.things, new))
        target_style = replace(style, relations=((added, relation, anchor),))
        words = {"b": f"{pair[0]} {pair[1]}", "r": relation, "o": _name(scene, pick, rng)}
    elif operation == "background":
        ground = sample_background(rng)
        if (ground.tone, ground.texture) == (scene.background.tone, scene.background.texture):
            return None
        target = replace(scene, background=ground)
        words = {"g": f"{ground.texture} {ground.tone}"}
    elif operation == "global":
        look = str(rng.choice([look for look in LOOKS if look != scene.look]))
        target, words = replace(scene, look=look), {"l": look}
    elif operation == "noop":
        target, kind = scene, str(rng.choice(NOOP_KINDS))
        if kind == "remove":
            absent = _free_pair(scene, rng, allow_unseen, lambda p: True)
            involved, words = [absent], {"a": " ".join(absent)}
        elif kind == "recolour":
            involved, words = [thing.pair], {"a": _name(scene, pick, rng), "c": thing.color}
        else:
            words = {"g": f"{scene.background.texture} {scene.background.tone}"}
    else:
        raise ValueError(f"operation: {operation!r} is not one of {', '.join(OPERATIONS)}")

    phrasings = PHRASINGS[kind][1 if unseen_phrasing else 0]
    described = scene if operation == "remove" else target
    involved += [scene.things[named].pair] if named is not None else []
    edit = Edit(
        operation=operation,
        instruction=phrasings[int(rng.integers(len(phrasings)))].format(**words),
        source_caption=caption_in_style(scene, style),
        target_caption=caption_in_style(described, target_style, hidden),
        source=scene,
        target=target,
        named=named,
        added=added,
        anchor=anchor,
        relation=relation,
        unseen_phrasing=unseen_phrasing,
    )
    involved += [edit.changed.pair] if edit.changed else []
    involved += [scene.things[anchor].pair] if anchor is not None else []
    return replace(edit, unseen_pair=any(p in UNSEEN_PAIRS for p in involved))


def _beside(scene: Scene, anchor: Thing, relation: str, rng: np.random.Generator):
    """(x, y, radius) in the given relation to the anchor and clear of all objects, or None if no place was found."""
    dx, dy = RELATIONS[relation]
    for _ in range(40):
        radius = float(rng.uniform(6.5, 11.0))
        along = anchor.radius + radius + rng.uniform(2, 14)
        across = rng.uniform(-0.35, 0.35) * along
        x, y = anchor.x + dx * along + dy * across, anchor.y + dy * along + dx * across
        if fits(x, y, radius, scene.things):
            return float(x), float(y), radius
    return None


def neighbours(scene: Scene, rng: np.random.Generator, n: int) -> list[Scene]:
    """n scenes that differ from this one in one attribute, one object or a swap of two colours: hard negatives."""
    out: list[Scene] = []
    while len(out) < n:
        change = str(
            rng.choice(
                ["color", "shape", "swap", "remove", "add", "ground", "size", "look"],
                p=[0.25, 0.25, 0.2, 0.1, 0.08, 0.05, 0.04, 0.03],
            )
        )
        made = _changed(scene, change, rng) if scene.things or change in ("add", "ground", "look") else None
        if made is not None and made not in out:
            out.append(made)
    return out


def _changed(scene: Scene, change: str, rng: np.random.Generator) -> Scene | None:
    if change == "ground":
        ground = sample_background(rng)
        same = (ground.tone, ground.texture) == (scene.background.tone, scene.background.texture)
        return None if same else replace(scene, background=ground)
    if change == "look":
        return replace(scene, look=str(rng.choice([look for look in ("", *LOOKS) if look != scene.look])))
    if change == "add":
        spot = place(rng, scene.things, high=11.0) if len(scene.things) < 4 else None
        pair = _free_pair(scene, rng, True, lambda p: True)
        return None if spot is None else replace(scene, things=(*scene.things, Thing(pair[1], pair[0], *spot)))
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    if change == "color":
        pair = _free_pair(scene, rng, True, lambda p: p[1] == thing.shape)
        return _with_thing(scene, index, color=pair[0]) if pair else None
    if change == "shape":
        pair = _free_pair(scene, rng, True, lambda p: p[0] == thing.color)
        return _with_thing(scene, index, shape=pair[1]) if pair else None
    if change == "remove":
        return replace(scene, things=tuple(t for t in scene.things if t is not thing))
    if change == "size":
        return _resized(scene, index, rng)
    other = int(rng.integers(len(scene.things)))
    swapped = _with_thing(_with_thing(scene, index, color=scene.things[other].color), other, color=thing.color)
    unique = len({t.pair for t in swapped.things}) == len(swapped.things)
    same = {t.pair for t in swapped.things} == {t.pair for t in scene.things}
    return swapped if unique and not same else None


def _resized(scene: Scene, index: int, rng: np.random.Generator) -> Scene | None:
    """The scene with a small object made large or a large one small; None if it is neither or has no room."""
    thing = scene.things[index]
    low, high = {"small": (LARGE, RADIUS[1]), "large": (RADIUS[0], SMALL)}.get(thing.size_word, (0, 0))
    others = tuple(t for i, t in enumerate(scene.things) if i != index)
    radius = float(rng.uniform(low, high))
    return _with_thing(scene, index, radius=radius) if low and fits(thing.x, thing.y, radius, others) else None
