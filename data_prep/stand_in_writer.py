"""A writer without a model, for rehearsals and tests: instant, always valid, a pure function of the request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self

from write_config import WriteConfig
from writer import Answer, Ask, Writer

_SENTENCES = {  # operation -> instruction, target caption; {o}: the object, {c}: the caption
    "replace": ("replace the {o} with a vase", "{c} with a vase instead of the {o}"),
    "recolour": ("make the {o} green", "{c} with a green {o}"),
    "add": ("add a vase next to the {o}", "{c} with a vase next to the {o}"),
    "remove": ("remove the {o}", "{c} without the {o}"),
    "background": ("put it in front of a forest", "{c} in front of a forest"),
    "style": ("make it a watercolour", "a watercolour of {c}"),
    "noop": ("leave the picture as it is", "{c}"),
}


class StandInWriter(Writer):
    """Puts the caption's longest word into fixed sentences."""

    @classmethod
    def load(cls, config: WriteConfig) -> Self:
        return cls()

    def write(self, asks: Sequence[Ask]) -> list[Answer]:
        return [Answer(self.answer(ask)) for ask in asks]

    def answer(self, ask: Ask) -> str:
        longest = max(ask.caption.split(), key=len)[:60]
        instruction, target = _SENTENCES[ask.operation or "recolour"]
        edit = {
            "operation": ask.operation or "recolour",
            "instruction": instruction.format(o=longest),
            "target_caption": target.format(o=longest, c=ask.caption[:900]),
            "object": longest,
        }
        return json.dumps(edit)
