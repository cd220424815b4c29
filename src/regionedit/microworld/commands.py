"""Parses instructions of the microworld's grammar, and writes the captions before and after an edit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from regionedit.microworld.grammar import PHRASINGS, CaptionStyle, caption_in_style
from regionedit.microworld.scene import COLORS, LARGE, LOOKS, SHAPES, SMALL, TEXTURES, TONES, Scene, Thing

_WORDS = {
    "a": rf"(?:(?P<a_color>{'|'.join(COLORS)}) )?(?P<a_shape>{'|'.join(SHAPES)})",
    "b": rf"(?P<b_color>{'|'.join(COLORS)}) (?P<b_shape>{'|'.join(SHAPES)})",
    "c": rf"(?P<c>{'|'.join(COLORS)})",
    "g": rf"(?P<texture>{'|'.join(TEXTURES)}) (?P<tone>{'|'.join(TONES)})",
    "r": r"(?P<relation>left of|right of|above|below)",
    "l": rf"(?P<look>{'|'.join(LOOKS)})",
    "o": rf"(?:(?P<o_color>{'|'.join(COLORS)}) )?(?P<o_shape>{'|'.join(SHAPES)})",
}

_PATTERNS = [
    (kind, re.compile(re.sub(r"\{(\w)\}", lambda m: _WORDS[m[1]], phrasing)))
    for kind, (seen, unseen) in PHRASINGS.items()
    for phrasing in (*seen, *unseen)
]


@dataclass(frozen=True)
class Command:
    """A parsed instruction. `kind` is an operation, with resize split into `enlarge` and `shrink`.

    Objects are (color or None, shape); ground is (texture, tone).
    """

    kind: str
    named: tuple[str | None, str] | None = None
    new: tuple[str, str] | None = None
    color: str | None = None
    ground: tuple[str, str] | None = None
    relation: str | None = None
    anchor: tuple[str | None, str] | None = None
    look: str | None = None

    @property
    def operation(self) -> str:
        """The instruction writers' name of the kind: they know no resize, and call a global edit a style."""
        return {"enlarge": "recolour", "shrink": "recolour", "global": "style"}.get(self.kind, self.kind)

    @property
    def keyword(self) -> str:
        """The named object, the new object for add, the background, or the whole picture."""
        place = "picture" if self.look else "background"
        return " ".join(word for word in self.named or self.new or (place,) if word)

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
        parts += ["->", self.look] if self.look else []
        parts += [self.relation, name(self.anchor)] if self.anchor else []
        return " ".join(parts)


def parse(instruction: str) -> Command:
    """Parse an instruction.

    Raises:
        ValueError: the instruction is not in the microworld's grammar.
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
                look=g.get("look"),
            )
    raise ValueError(f"instruction: {instruction!r} is not in the microworld's grammar; try 'make the red circle blue'")


def _find(things: Sequence[Thing], pair: tuple[str | None, str], removed: set[int]) -> int | None:
    color, shape = pair
    for index, thing in enumerate(things):
        if index not in removed and thing.shape == shape and color in (None, thing.color):
            return index
    return None


def captions_of(scene: Scene, *commands: Command, believe: bool = False) -> tuple[str, str]:
    """Source and target caption of a scene that was read from pixels, with the commands applied in order.

    Args:
        believe: assume that a coloured object exists if a command names it but the scene does not show it: the user
            sees it.

    Raises:
        ValueError: a command names an object that is not in the scene, or that an earlier command removed.
    """
    before, after = [*scene.things], [*scene.things]  # an object has the same index in both
    background, look = scene.background, scene.look
    added: set[int] = set()
    removed: set[int] = set()
    sized: set[int] = set()
    relations: list[tuple[int, str, int]] = []

    def index_of(pair: tuple[str | None, str]) -> int:
        index = _find(after, pair, removed)
        if index is not None:
            return index
        if not (believe and pair[0]) or _find(after, pair, set()) is not None:  # it exists but was removed
            raise ValueError(f"instruction: the picture shows no {' '.join(w for w in pair if w)}")
        for things in (before, after):
            things.append(Thing(pair[1], pair[0], 0, 0, 10))
        return len(after) - 1

    for command in commands:
        index = index_of(command.named) if command.named else None
        if command.kind == "replace":
            after[index] = replace(after[index], color=command.new[0], shape=command.new[1])
        elif command.kind == "recolour":
            after[index] = replace(after[index], color=command.color)
        elif command.kind in ("enlarge", "shrink"):
            small, large = (SMALL, LARGE) if command.kind == "enlarge" else (LARGE, SMALL)
            if index not in sized:  # the first resize decides the size before the edit
                before[index] = replace(before[index], radius=small)
            after[index] = replace(after[index], radius=large)
            sized.add(index)
        elif command.kind == "remove":
            removed.add(index)
        elif command.kind == "add":
            anchor = index_of(command.anchor)
            for things in (before, after):
                things.append(Thing(command.new[1], command.new[0], 0, 0, 10))
            added.add(len(after) - 1)
            relations.append((len(after) - 1, command.relation, anchor))
        elif command.kind == "background":
            background = replace(background, texture=command.ground[0], tone=command.ground[1])
        elif command.kind == "global":
            look = command.look
    style = CaptionStyle(sized=frozenset(sized))
    source = caption_in_style(Scene(scene.background, tuple(before), scene.look), style, frozenset(added))
    style = replace(style, relations=tuple(relations))
    return source, caption_in_style(Scene(background, tuple(after), look), style, frozenset(removed))
