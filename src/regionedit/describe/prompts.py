"""The prompts for models, in the text files of prompts/; a prompt's version is its hash."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from regionedit.describe.chat import Chat

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = Path(__file__).with_name("prompts")
BETWEEN = "\n---\n"
JOINED = "; "  # between several instructions


@dataclass(frozen=True)
class Prompt:
    """What the model is to do, the question with placeholders such as `$caption`, and the hash of their file."""

    system: str
    user: str
    sha256: str

    def chat(self, picture: Image | None = None, **words: str) -> Chat:
        """The question with `words` filled in; placeholders inside the words themselves are not expanded."""
        return Chat(self.system, Template(self.user).substitute(words), picture)


@functools.cache
def prompt(name: str) -> Prompt:
    """The prompt `name`.txt: the system text above a line `---`, the question below it."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    system, user = text.rstrip("\n").split(BETWEEN)
    return Prompt(system, user, hashlib.sha256(text.encode()).hexdigest())
