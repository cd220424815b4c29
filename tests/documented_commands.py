"""The commands on README and on the pages of docs/, as they are printed there."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def bash(page: Path) -> list[str]:
    """The lines of its blocks of bash."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.M | re.S)
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def lines(page: Path) -> list[str]:
    """The lines that are commands: in blocks of bash, in indented blocks, and inline."""
    plain = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    indented = "".join(re.findall(r"^ {4}.*\n", plain, re.M)).replace("\\\n", " ").splitlines()
    return [*bash(page), *indented, *re.findall(r"`([^`\n]+)`", plain)]


def commands(line: str) -> list[list[str]]:
    """The commands of a line, without settings of variables; none if it is no shell."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    found: list[list[str]] = [[]]
    try:
        for word in words:
            if set(word) <= set("&|;()"):
                found.append([])
            elif found[-1] or not re.match("[A-Z_]+=", word):
                found[-1].append(word)
    except ValueError:  # an open quotation mark: text, or one line of several
        return []
    return [words for words in found if words and re.match(r"[\w.]", words[0])]


def command(page: str, *words: str) -> list[str]:
    """The words of the first command on a page, such as `docs/training.md`, that has all these words."""
    for line in lines(ROOT / page):
        for found in commands(line):
            if set(words) <= set(found):
                return found
    raise LookupError(f"{page} has no command with {' '.join(words)}")
