"""Lists of requests as people have them: JSONL, and CSV from a spreadsheet, both as lines of JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import suppress
from pathlib import Path

TABLES = (".csv", ".tsv")


def list_lines(path: Path, shown: str) -> list[str]:
    """The lines of a JSONL, or those of a CSV as `csv_lines`; a byte-order mark is dropped, and UTF-16 is read.

    Args:
        shown: how messages name the file.

    Raises ValueError: no text file, or a CSV that cannot be read.
    """
    try:
        data = path.read_bytes()
        # Spreadsheets save "Unicode text" as UTF-16, and so does `>` in PowerShell.
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if path.suffix.lower() in TABLES:
            return csv_lines(text)
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown} is not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
    # Not `splitlines`: U+2028 and its like may stand inside a JSON string and end no line.
    return re.split(r"\r\n|\n|\r", text)


def csv_lines(text: str) -> list[str]:
    """The rows of a CSV as lines of JSON, with the header's names as keys.

    Columns are separated by commas, semicolons or tabs, whichever the header has most, or as a first line `sep=;` says.
    Names are read without regard to case and spaces; empty cells are left out. A row stands in the line where it ends
    in the file, so that messages have the file's line numbers.

    Raises ValueError: two columns of one name, a row with more cells than the header, or quotes that do not match.
    """
    said = re.match(r'"?sep=(.)"?(\r\n|\n|\r)', text, re.IGNORECASE)
    body = text[said.end() :] if said else text
    header = body.lstrip().splitlines()[:1] or [""]
    separator = said[1] if said else max(",;\t", key=header[0].count)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    lines: list[str] = []
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num + bool(said)}: {error}") from None
        if row is None:
            return lines
        number = reader.line_num + bool(said)
        if not any(cell.strip() for cell in row):
            continue
        if not names:
            names = [cell.strip().lower() for cell in row]
            if double := next((name for name in names if name and names.count(name) > 1), None):
                raise ValueError(f"line {number}: {double}: two columns have this name; keep one of them")
            continue
        if any(cell.strip() for cell in row[len(names) :]):
            raise ValueError(f"line {number}: {len(row)} cells, but the header has {len(names)}")
        cells = {name: _value(name, cell) for name, cell in zip(names, row, strict=False) if cell.strip()}
        if "" in cells:
            raise ValueError(
                f"line {number}: the cell {cells[''][:40]!r} is in a column without a name; name it or leave it out "
                "(pandas writes its index as such a column: use to_csv with index=False)"
            )
        lines += [""] * (number - 1 - len(lines))
        lines.append(json.dumps(cells))


def _value(name: str, cell: str) -> str | int | bool:
    """A number for `seed`, true or false for `mask_soft`, the text for all others; wrong ones are refused later."""
    if name == "seed":
        with suppress(ValueError):
            return int(cell)
    if name == "mask_soft" and cell.strip().lower() in ("true", "false"):
        return cell.strip().lower() == "true"
    return cell
