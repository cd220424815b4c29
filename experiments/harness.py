"""What the study's measuring scripts share: their options, result files, and tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from regionedit.files import write_atomic

Rows = Mapping[str, Mapping[str, float | int | str | None]]
"""{row: {column: value}}; every row has the columns of the first."""


def options(
    description: str, config: tuple[str, str], out: str, samples: tuple[int, str] | None = None
) -> argparse.ArgumentParser:
    """The options `--config`, `--out` and, with `samples`, `--samples` of a measuring script: defaults and help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=config[0], help=config[1])
    if samples:
        parser.add_argument("--samples", type=int, default=samples[0], help=samples[1])
    parser.add_argument("--out", type=Path, default=Path(out), help="file to write")
    return parser


def rounded(results):
    """The same nested dicts and lists with every float rounded to four digits."""
    if isinstance(results, dict):
        return {name: rounded(value) for name, value in results.items()}
    if isinstance(results, list):
        return [rounded(value) for value in results]
    return round(results, 4) if isinstance(results, float) else results


def write_json(path: Path, results: dict) -> None:
    """Write a result file atomically."""
    write_atomic(path, json.dumps(results, indent=1).encode())


def cells(row: Mapping[str, float | int | str | None]) -> list[str]:
    """The values of a row as text: three digits for floats, `-` for None."""
    return ["-" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()]


def show(title: str, rows: Rows) -> None:
    """Print a table."""
    table = Table("", *next(iter(rows.values()), {}), title=title)
    for name, row in rows.items():
        table.add_row(name, *cells(row))
    Console().print(table)


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in [*lines, *(list(row) for row in rows)])
