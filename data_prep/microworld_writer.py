"""A writer for the microworld's grammar: parses a caption and composes an edit for it, without any model."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from writers import Answer, Ask, Writer

from regionedit.microworld.commands import Command, parse
from regionedit.microworld.grammar import CAPTIONS, PHRASINGS, RELATIONS, with_look
from regionedit.microworld.scene import COLORS, LOOKS, SHAPES, TEXTURES, TONES, all_pairs

Pair = tuple[str, str]  # colour, shape

_PAIR = rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
_RELATION = rf" ({'|'.join(RELATIONS)}) the {_PAIR}"
_OBJECT = re.compile(rf"a (?:(small|large) )?{_PAIR}((?:{_RELATION})*)")
_GROUND = rf"a (?:(?P<texture>{'|'.join(TEXTURES)}) (?P<tone>{'|'.join(TONES)}) )?background"
_TEMPLATES = [re.compile(template.format(things="(?P<things>.+)", ground=_GROUND)) for template in CAPTIONS]
_EMPTY = re.compile(_GROUND.replace("a ", "an empty ", 1))
_LOOK = re.compile(rf"a ({'|'.join(LOOKS)}) picture of (.+)")
# writer's operation -> grammar's kind, where the names differ
_KINDS = {"style": "global", "noop": "recolour"}


@dataclass(frozen=True)
class Told:
    """One object of a caption, with the relations that the caption gives for it."""

    pair: Pair
    size: str = ""
    relations: tuple[tuple[str, Pair], ...] = ()

    def __str__(self) -> str:
        size = f"{self.size} " * bool(self.size)
        places = "".join(f" {relation} the {' '.join(other)}" for relation, other in self.relations)
        return f"a {size}{' '.join(self.pair)}{places}"


@dataclass(frozen=True)
class CaptionParts:
    """A parsed caption; ground is (texture, tone), or None if the caption does not describe the background."""

    things: tuple[Told, ...]
    ground: tuple[str, str] | None
    template: int = 0
    look: str = ""

    @classmethod
    def read(cls, caption: str) -> Self:
        """Parse a caption. Raises ValueError: not a caption of the microworld."""
        looked = _LOOK.fullmatch(caption)
        if looked:
            return replace(cls.read(looked[2]), look=looked[1])
        empty = _EMPTY.fullmatch(caption)
        if empty:
            return cls((), empty["tone"] and (empty["texture"], empty["tone"]))
        for number, template in enumerate(_TEMPLATES):
            found = template.fullmatch(caption)
            matches = [_OBJECT.fullmatch(part) for part in re.split(", | and ", found["things"])] if found else [None]
            if all(matches):
                objects = [
                    Told((m[2], m[3]), m[1] or "", tuple((r, (c, s)) for r, c, s in re.findall(_RELATION, m[4])))
                    for m in matches
                ]
                return cls(tuple(objects), found["tone"] and (found["texture"], found["tone"]), number)
        raise ValueError("not a caption of the microworld")

    def __str__(self) -> str:
        ground = f"{' '.join(self.ground)} background" if self.ground else "background"
        if not self.things:
            text = f"an empty {ground}"
        else:
            *first, last = map(str, self.things)
            objects = f"{', '.join(first)} and {last}" if first else last
            text = CAPTIONS[self.template].format(things=objects, ground=f"a {ground}")
        return with_look(text, self.look)

    def find(self, named: tuple[str | None, str]) -> Told:
        """The object of this colour (None: any) and shape. Raises ValueError: the caption names no such object."""
        for item in self.things:
            if item.pair[1] == named[1] and named[0] in (None, item.pair[0]):
                return item
        raise ValueError("the caption does not name it")

    def renamed(self, old: Pair, new: Pair) -> CaptionParts:
        """The caption with another object, or another colour, wherever it mentions the old one."""
        return replace(
            self,
            things=tuple(
                replace(
                    item,
                    pair=new if item.pair == old else item.pair,
                    relations=tuple((r, new if other == old else other) for r, other in item.relations),
                )
                for item in self.things
            ),
        )

    def without(self, pair: Pair) -> CaptionParts:
        left = (item for item in self.things if item.pair != pair)
        return replace(
            self,
            things=tuple(replace(t, relations=tuple(r for r in t.relations if r[1] != pair)) for t in left),
        )

    def after(self, command: Command) -> CaptionParts:
        """The caption of the edited picture.

        Raises:
            ValueError: the command names an object that the caption does not mention.
        """
        if command.kind == "background":
            return replace(self, ground=command.ground)
        if command.kind == "global":
            return replace(self, look=command.look)
        if command.kind == "add":
            anchor = self.find(command.anchor).pair
            return replace(self, things=(*self.things, Told(command.new, "", ((command.relation, anchor),))))
        named = self.find(command.named)
        if command.kind == "remove":
            return self.without(named.pair)
        if command.kind in ("enlarge", "shrink"):
            resized = replace(named, size="large" if command.kind == "enlarge" else "small")
            return replace(self, things=tuple(resized if item == named else item for item in self.things))
        return self.renamed(named.pair, command.new or (command.color, named.pair[1]))


def invent(parts: CaptionParts, operation: str, dice: random.Random) -> tuple[str, Command]:
    """Compose an instruction of this operation for a caption; returns it with the parsed command.

    Raises:
        ValueError: the caption has no object that the operation could apply to.
    """
    if not parts.things and operation not in ("background", "style"):
        raise ValueError(f"nothing to {operation}")
    words: dict[str, str] = {}
    if parts.things:
        chosen = dice.choice(parts.things)
        alone = sum(item.pair[1] == chosen.pair[1] for item in parts.things) == 1
        name = chosen.pair[1] if alone and dice.random() < 0.12 else " ".join(chosen.pair)
        words = {"a": name, "o": name}
    taken = {item.pair for item in parts.things}
    free = [pair for pair in all_pairs(allow_unseen=False) if pair not in taken]
    if operation == "replace":
        words["b"] = " ".join(dice.choice([pair for pair in free if pair[1] != chosen.pair[1]]))
    elif operation == "recolour":
        words["c"] = dice.choice([pair[0] for pair in free if pair[1] == chosen.pair[1]])
    elif operation == "add":
        words |= {"b": " ".join(dice.choice(free)), "r": dice.choice(list(RELATIONS))}
    elif operation == "background":
        grounds = [(texture, tone) for texture in TEXTURES for tone in TONES]
        words["g"] = " ".join(dice.choice([ground for ground in grounds if ground != parts.ground]))
    elif operation == "style":
        words["l"] = dice.choice([look for look in LOOKS if look != parts.look])
    elif operation == "noop":
        words |= {"a": " ".join(chosen.pair), "c": chosen.pair[0]}
    instruction = dice.choice(PHRASINGS[_KINDS.get(operation, operation)][0]).format(**words)
    return instruction, parse(instruction)


class MicroworldWriter(Writer):
    """Writes instructions of the microworld's grammar, or target captions for given ones; deterministic."""

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answer:
        try:
            parts = CaptionParts.read(ask.caption)
            if ask.instruction is None:
                instruction, command = invent(parts, ask.operation, random.Random(ask.seed))
            else:
                instruction, command = ask.instruction, parse(ask.instruction)
            target = str(parts.after(command))
            edit = {
                "operation": "noop" if target == ask.caption else command.operation,
                "instruction": instruction,
                "target_caption": target,
                "object": command.keyword,
            }
        except ValueError as error:
            reason = "not its grammar" if "grammar" in str(error) else str(error)
            return Answer(failure=f"microworld: {reason}")
        return Answer(json.dumps(edit))
