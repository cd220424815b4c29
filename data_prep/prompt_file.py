"""Prompts for the writer's model, stored as text files and versioned by the hash of the file.

A file has the sections `[system]` (the same for every request, so that an engine computes it once), `[user]` (one
request) and optionally `[wordings]` (hints for varied phrasing, one a line). In `[user]`, the placeholders
`{operation}`, `{wording}`, `{caption}` and `{instruction}` are replaced by the request's values. Each value is inserted
as a JSON string: whatever quotes, line breaks or orders a caption contains, it stays one string of data.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("prompts")
_ENCODER = json.JSONEncoder(ensure_ascii=False)  # reused: json.dumps would create one for every string
_PLACES = re.compile(r"\{(operation|wording|caption|instruction)\}")


@dataclass(frozen=True)
class Prompt:
    """One prompt file.

    Args:
        digest: SHA-256 of the file's bytes.
        system, user: the sections; `system` may be empty.
        wordings: hints, at least one; `("",)` if the file gives none.
    """

    digest: str
    system: str
    user: str
    wordings: tuple[str, ...]

    def messages(self, **values: str) -> list[dict[str, str]]:
        """The chat messages of one request.

        Args:
            values: `operation`, `wording`, `caption` and `instruction`, as far as the `[user]` section uses them.
        """
        user = _PLACES.sub(lambda place: _ENCODER.encode(values[place[1]]), self.user)
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, {"role": "user", "content": user}]


def load_prompt(name: str) -> Prompt:
    """Load a file of data_prep/prompts by its name without suffix, or any file by its path.

    Raises:
        ValueError: no such file, or its `[user]` section does not use the caption.
    """
    path = FOLDER / f"{name}.txt" if "/" not in name and not name.endswith(".txt") else Path(name)
    try:
        data = path.read_bytes()
        parts = re.split(r"^\[(system|user|wordings)\]\n", data.decode(), flags=re.M)
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.txt")))
        raise ValueError(
            f"prompt: {path} cannot be read ({error}); use one of {known}, or the path of a file"
        ) from None
    sections = dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))
    if parts[0].strip() or "{caption}" not in sections.get("user", ""):
        raise ValueError(f"prompt: {path} needs a [user] section with {{caption}}, and nothing before its sections")
    wordings = tuple(line.strip() for line in sections.get("wordings", "").splitlines() if line.strip())
    return Prompt(
        digest=hashlib.sha256(data).hexdigest(),
        system=sections.get("system", ""),
        user=sections["user"],
        wordings=wordings or ("",),
    )
