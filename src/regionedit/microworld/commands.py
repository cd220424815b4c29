"""What an instruction means, from its words alone; and what a scene looks like after it, in words."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from regionedit.microworld.grammar import PHRASINGS, CaptionStyle, caption_in_style
from regionedit.microworld.scene import COLORS, LARGE, SHAPES, SMALL, TEXTURES, TONES, Scene, Thing

_WORDS = {
    "a": rf"(?:(?P<a_color>{'|'.join(COLORS)}) )?(?P<a_shape>{'|'.join(SHAPES)})",
    "b": rf"(?P<b_color>{'|'.join(COLORS)}) (?P<b_shape>{'|'.join(SHAPES)})",
    "c": rf"(?P<c>{'|'.join(COLORS)})",
    "g": rf"(?P<texture>{'|'.join(TEXTURES)}) (?P<tone>{'|'.join(TONES)})",
    "r": r"(?P<relation>left of|right of|above|below)",
    "o": rf"(?:(?P<o_color>{'|'.join(COLORS)}) )?(?P<o_shape>{'|'.join(SHAPES)})",
}


def _patterns():
    for kind, groups in PHRASINGS.items():
        for phrasing in (*groups[0], *groups[1]):
            yield kind, re.compile(re.sub(r"\{(\w)\}", lambda m: _WORDS[m[1]], phrasing))


_PATTERNS = tuple(_patterns())


@dataclass(frozen=True)
class Command:
    """An understood instruction; kind is an operation, with resize told apart as enlarge and shrink.

    Things are (color or None, shape); ground is (texture, tone).
    """

    kind: str
    named: tuple[str | None, str] | None = None
    new: tuple[str, str] | None = None
    color: str | None = None
    ground: tuple[str, str] | None = None
    relation: str | None = None
    anchor: tuple[str | None, str] | None = None

    @property
    def canonical(self) -> str:
        """One fixed wording for each meaning, for example `replace red circle -> green square`."""

        def name(pair):
            return " ".join(w for w in pair if w)

        parts = [self.kind]
        parts += [name(self.named)] if self.named else []
        if self.new:
            parts += ["->", name(self.new)] if self.named else [name(self.new)]
        parts += ["->", self.color] if self.color else []
        parts += ["->", *self.ground] if self.ground else []
        parts += [self.relation, name(self.anchor)] if self.anchor else []
        return " ".join(parts)


def parse(instruction: str) -> Command:
    """The meaning of an instruction.

    Raises:
        ValueError: not a sentence of the microworld's grammar.
    """
    text = " ".join(instruction.lower().strip(" .!").split())
    for kind, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            g = match.groupdict()
            return Command(
                kind=kind,
                named=(g["a_color"], g["a_shape"]) if g.get("a_shape") else None,
                new=(g["b_color"], g["b_shape"]) if g.get("b_shape") else None,
                color=g.get("c"),
                ground=(g["texture"], g["tone"]) if g.get("tone") else None,
                relation=g.get("relation"),
                anchor=(g["o_color"], g["o_shape"]) if g.get("o_shape") else None,
            )
    raise ValueError(f"instruction: {instruction!r} is not in the microworld's grammar; try 'make the red circle blue'")


def _find(scene: Scene, pair: tuple[str | None, str]) -> int:
    color, shape = pair
    for index, thing in enumerate(scene.things):
        if thing.shape == shape and color in (None, thing.color):
            return index
    raise ValueError(f"instruction: the picture shows no {' '.join(w for w in pair if w)}")


def captions_of(scene: Scene, command: Command) -> tuple[str, str]:
    """(source caption, target caption) of a scene as it was read from pixels, and a command.

    Raises:
        ValueError: the command names a thing that the scene does not show.
    """
    sized: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()
    target = scene
    index = _find(scene, command.named) if command.named else None
    things = list(scene.things)
    if command.kind == "replace":
        things[index] = replace(things[index], color=command.new[0], shape=command.new[1])
    elif command.kind == "recolour":
        things[index] = replace(things[index], color=command.color)
    elif command.kind in ("enlarge", "shrink"):
        sized = frozenset({index})
        before, after = (SMALL, LARGE) if command.kind == "enlarge" else (LARGE, SMALL)
        scene = replace(
            scene, things=tuple(replace(t, radius=before) if i == index else t for i, t in enumerate(things))
        )
        things[index] = replace(things[index], radius=after)
    elif command.kind == "remove":
        hidden = frozenset({index})
    style = CaptionStyle(sized=sized)
    target_style = style
    if command.kind == "add":
        anchor = _find(scene, command.anchor)
        things.append(Thing(command.new[1], command.new[0], 0, 0, 10))
        target_style = replace(style, relation=(len(things) - 1, command.relation, anchor))
    target = replace(scene, things=tuple(things))
    if command.kind == "background":
        ground = replace(scene.background, texture=command.ground[0], tone=command.ground[1])
        target = replace(scene, background=ground)
    return caption_in_style(scene, style), caption_in_style(target, target_style, hidden)
