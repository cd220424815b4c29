"""A small rule that finds the keyword of an instruction, the word that names the object to edit, and its position.

The rule reads English word by word, with short word lists and no model. It takes the first object named after the verb:
`make the jacket red` -> jacket, `replace the cat with a dog` -> cat, `add a hat to the man` -> hat.

1. After properties and substitutions the object follows: `the color of the car`, `a dog in place of the cat`.
2. Commands at the start are skipped (make, please, get rid of ...). The first phrase ends where another begins: at a
   preposition, at `should`, at `and`, at the next article.
3. The keyword is the last word of this phrase that is no colour, size or other common adjective. After verbs that say
   what the object becomes (make, turn, paint, let ...) an unknown last word counts as an adjective too: `make the
   jacket shiny`.
4. If no object is named (`make it snowy`), the keyword is the last word with a meaning of its own.
"""

from __future__ import annotations

import re

_COMMANDS = frozenset(
    "please can could would will what how you i want need like let us have get take put place add insert draw "
    "include attach remove delete erase eliminate replace swap exchange substitute change convert transform modify "
    "edit alter adjust give use set make turn paint dye color colour recolor recolour tint render keep enlarge "
    "shrink resize scale move raise lower increase decrease brighten darken blur sharpen cover fill rid away out up "
    "down off there should must be is are to show create apply only just now then also instead".split()
)
_BECOMING = frozenset("make turn paint dye color colour recolor recolour tint render keep let have".split())
_DETERMINERS = frozenset(
    "a an the this that these those his her its their my your our some any all every each both no another one".split()
)
_PRONOUNS = frozenset("it he she they him them something everything nothing everyone someone".split())
_BOUNDARIES = frozenset(
    "to into with like by as for on onto in inside at above below left right next behind over under near beside "
    "from of around between across through against before after and or but so such while without look looks looking "
    "appear seem become becomes wear wears wearing hold holds holding have has be is are were was should must that "
    "which who where if than , . ; : ! ?".split()
)
_PROPERTIES = frozenset("color colour size shape style texture material pattern".split())
_ADJECTIVES = frozenset(
    "red orange yellow green blue purple pink brown black white gray grey cyan magenta golden gold silver beige "
    "turquoise violet colorful colourful striped dotted plain big bigger large larger huge small smaller tiny "
    "little tall taller short shorter long longer wide wider old older young younger new bright brighter dark "
    "darker light lighter wooden metal metallic elegant happy sad beautiful more less very much many few two three "
    "four first second other same different bit".split()
)
_POINTERS = (("in", "place", "of"), ("instead", "of"))


def find_keyword(text: str) -> str:
    """The keyword of an instruction in lower case, by the rule above; always a word of the text.

    Raises ValueError: there is no word in it.
    """
    words = re.findall(r"\w+(?:[-'’]\w+)*|[,.;:!?]", text.lower())
    real_words = [word for word in words if word[0].isalnum() or word[0] == "_"]
    if not real_words:
        raise ValueError(f"keyword: the instruction {text[:60]!r} has no word; say which object is meant")
    becoming = any(word in _BECOMING for word in words[:3])
    phrase, ended = _first_phrase(_after_pointers(words))
    nouns = [word for word in phrase if word not in _ADJECTIVES]
    if becoming and not ended and len(nouns) > 1 and nouns[-1] == phrase[-1]:
        nouns = nouns[:-1]
    if nouns:
        return nouns[-1]
    dropped = _COMMANDS | _DETERMINERS | _PRONOUNS | _BOUNDARIES
    return next((word for word in reversed(real_words) if word not in dropped), real_words[-1])


def keyword_span(text: str, keyword: str) -> tuple[int, int]:
    """Start and end of the keyword's first occurrence in its instruction, in characters; whole words, any case.

    Raises ValueError: the keyword is empty or does not occur in the instruction.
    """
    found = keyword.strip() and re.search(rf"(?<!\w){re.escape(keyword.strip())}(?!\w)", text, re.IGNORECASE)
    if not found:
        raise ValueError(
            f"keyword: {keyword!r} is no word of its instruction {text[:60]!r}; give one that occurs in it"
        )
    return found.span()


def _after_pointers(words: list[str]) -> list[str]:
    """The words after `in place of`, `the color of` and the like; all words if there is no such phrase."""
    for pointer in _POINTERS:
        for index in range(1, len(words) - len(pointer)):
            if tuple(words[index : index + len(pointer)]) == pointer:
                return words[index + len(pointer) :]
    for index, (word, following) in enumerate(zip(words, words[1:], strict=False)):
        if following == "of" and word in _PROPERTIES:
            return words[index + 2 :]
    return words


def _first_phrase(words: list[str]) -> tuple[list[str], bool]:
    """The words that name the first object, without articles, and whether another phrase follows."""
    start = 0
    while start < len(words) and words[start] in _COMMANDS:
        start += 1
    phrase: list[str] = []
    for word in words[start:]:
        if word in _DETERMINERS or word in _PRONOUNS:
            if phrase:
                return phrase, True
        elif word in _BOUNDARIES:
            if phrase:
                return phrase, True
        else:
            phrase.append(word)
    return phrase, False
