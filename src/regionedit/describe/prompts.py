"""What models are asked, in the text files of prompts/; a prompt's version is its hash."""

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
    """One question with places to fill in.

    Args:
        system: what the model is to do.
        user: the question; `$caption` and `$instruction` are filled in.
        sha256: of the file.
    """

    system: str
    user: str
    sha256: str

    def chat(self, picture: Image | None = None, **words: str) -> Chat:
        """The question about these words; what stands in them is never filled in itself."""
        return Chat(self.system, Template(self.user).substitute(words), picture)


@functools.cache
def prompt(name: str) -> Prompt:
    """The prompt `name`.txt: above a line `---` what the model is to do, below it the question."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    system, user = text.rstrip("\n").split(BETWEEN)
    return Prompt(system, user, hashlib.sha256(text.encode()).hexdigest())
