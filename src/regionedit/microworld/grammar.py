"""The wording of captions and instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from regionedit.microworld.scene import COLORS, LOOKS, SHAPES, TEXTURES, TONES, Scene, Thing

RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}

# (seen, unseen) phrasings. {a}: the named object, {b}: the new object, {c}: a colour, {g}: a background's texture and
# tone, {r}: a relation, {o}: the object it refers to, {l}: a look.
PHRASINGS = {
    "replace": (
        ("replace the {a} with a {b}", "change the {a} to a {b}", "turn the {a} into a {b}", "swap the {a} for a {b}"),
        ("put a {b} in place of the {a}", "the {a} should become a {b}"),
    ),
    "recolour": (
        ("make the {a} {c}", "paint the {a} {c}", "change the color of the {a} to {c}", "turn the {a} {c}"),
        ("give the {a} a {c} color", "the {a} should be {c}"),
    ),
    "enlarge": (
        ("make the {a} bigger", "enlarge the {a}", "make the {a} large"),
        ("scale up the {a}", "the {a} should be larger"),
    ),
    "shrink": (
        ("make the {a} smaller", "shrink the {a}", "make the {a} small"),
        ("scale down the {a}", "the {a} should be smaller"),
    ),
    "remove": (
        ("remove the {a}", "delete the {a}", "erase the {a}", "take away the {a}"),
        ("get rid of the {a}", "there should be no {a}"),
    ),
    "add": (
        ("add a {b} {r} the {o}", "put a {b} {r} the {o}", "draw a {b} {r} the {o}", "place a {b} {r} the {o}"),
        ("insert a {b} {r} the {o}", "there should be a {b} {r} the {o}"),
    ),
    "background": (
        ("change the background to {g}", "make the background {g}", "turn the background into {g}"),
        ("use a {g} background", "the background should be {g}"),
    ),
    "global": (
        ("make the picture {l}", "turn the whole picture {l}", "make everything {l}"),
        ("give the picture a {l} look", "the whole picture should be {l}"),
    ),
}
# noop: the scene already matches the instruction, which has the wording of one of NOOP_KINDS
OPERATIONS = ("replace", "recolour", "resize", "remove", "add", "background", "global", "noop")
NOOP_KINDS = ("recolour", "background", "remove")
CAPTIONS = (
    "{things} on {ground}",
    "a picture of {things} on {ground}",
    "{ground} with {things}",
    "{things} over {ground}",
)

_CONNECTIVES = ("a", "an", "and", "picture", "of", "on", "over", "with", "background", "empty", "small", "large")
VOCABULARY = tuple(
    sorted(
        {w for kinds in PHRASINGS.values() for group in kinds for p in group for w in re.sub(r"\{\w\}", " ", p).split()}
        | {w for r in RELATIONS for w in r.split()}
        | {*_CONNECTIVES, *COLORS, *SHAPES, *TONES, *TEXTURES, *LOOKS}
    )
)


@dataclass(frozen=True)
class CaptionStyle:
    """The wording of a caption: with one style, the captions before and after an edit differ only in what was edited.

    Args:
        template: index into CAPTIONS.
        order: object indices in the order of mention; objects that are not listed follow.
        sized: objects whose size is mentioned.
        ground: whether the background's tone and texture are mentioned.
        relations: (object, relation, other object), mentioned after the first of the two.
    """

    template: int = 0
    order: tuple[int, ...] = ()
    sized: frozenset[int] = frozenset()
    ground: bool = True
    relations: tuple[tuple[int, str, int], ...] = ()


def relation_between(a: Thing, b: Thing) -> str | None:
    """The relation of a to b, if one is clear, or None."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) > 1.6 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 1.6 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def sample_style(scene: Scene, rng: np.random.Generator, ground: bool = False) -> CaptionStyle:
    """A random wording; with `ground` it always mentions the background's tone and texture."""
    count = len(scene.things)
    relations = ()
    if count > 1 and rng.random() < 0.25:
        a, b = (int(i) for i in rng.choice(count, 2, replace=False))
        relation = relation_between(scene.things[a], scene.things[b])
        relations = ((a, relation, b),) if relation else ()
    return CaptionStyle(
        template=int(rng.integers(len(CAPTIONS))),
        order=tuple(int(i) for i in rng.permutation(count)),
        sized=frozenset(i for i in range(count) if rng.random() < 0.5),
        ground=ground or bool(rng.random() < 0.9),
        relations=relations,
    )


def with_look(caption: str, look: str) -> str:
    """A caption that mentions the picture's look, unless that is empty."""
    return f"a {look} picture of {caption.removeprefix('a picture of ')}" if look else caption


def caption_in_style(scene: Scene, style: CaptionStyle, hidden: frozenset[int] = frozenset()) -> str:
    """The scene's caption; objects in `hidden` are left out (they were removed)."""
    order = [*style.order, *(i for i in range(len(scene.things)) if i not in style.order)]
    phrases = []
    for i in order:
        if i in hidden:
            continue
        thing = scene.things[i]
        size = thing.size_word if i in style.sized else ""
        text = " ".join(filter(None, ("a", size, thing.color, thing.shape)))
        for subject, relation, other in style.relations:
            if subject == i and other not in hidden:
                text += f" {relation} the {scene.things[other].color} {scene.things[other].shape}"
        phrases.append(text)
    background = scene.background
    ground = f"{background.texture} {background.tone} background" if style.ground else "background"
    things = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1] if phrases else ""
    template = CAPTIONS[style.template] if phrases else "an empty {ground}"
    return with_look(template.format(things=things, ground=f"a {ground}" if phrases else ground), scene.look)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random caption of the scene."""
    return caption_in_style(scene, sample_style(scene, rng))
