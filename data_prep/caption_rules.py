"""Rules that need only the caption: its length, its script and language, boilerplate.

The language is guessed without a model. A caption counts as foreign if too many of its letters are not Latin, or too
many of its words are function words of another European language. The lists leave out words that are also English
(met, pour, des) and words that occur in many names (de, la, los, van): "Los Angeles" is not Spanish. A foreign caption
without function words ("Rotes Sofa Wohnzimmer") therefore passes; an English caption is hardly ever marked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

FOREIGN = frozenset(
    word
    for words in (
        "der das dem und mit für ein eine einen einer im auf vom ist nicht zum zur bei aus auch",  # German
        "le les une et avec dans est aux qui sont cette ces ses où",  # French
        "una para con por como más muy esta este sus",  # Spanish
        "il gli della delle dei di che sono nel nella dello è più",  # Italian
        "um uma dos não em ao pela pelo são",  # Portuguese
        "het een voor zijn niet aan naar ook",  # Dutch
        "na nie jest dla się oraz",  # Polish
        "och för på av är det",  # Swedish
    )
    for word in words.split()
)
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
LATIN = re.compile(r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ]")
LETTER = re.compile(r"[^\W\d_]")


def latin_share(caption: str) -> float:
    """Share of the letters that are Latin; 1 where there are no letters."""
    letters = LETTER.findall(caption)
    return len(LATIN.findall(caption)) / len(letters) if letters else 1.0


def foreign_share(caption: str) -> float:
    """Share of the words that are function words of another language; 0 for a single one, which may be a name."""
    words = WORD.findall(caption.lower())
    foreign = [word for word in words if word in FOREIGN]
    return len(foreign) / len(words) if len(set(foreign)) > 1 else 0.0


def compile_boilerplate(patterns: Sequence[str]) -> re.Pattern | None:
    """Combine all patterns into one regular expression; None if there are no patterns.

    Raises:
        ValueError: a pattern is not a regular expression; names it.
    """
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"boilerplate: {pattern!r} is not a regular expression: {error}") from None
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE) if patterns else None
