"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from regionedit.evaluation.tables import TextTable
from regionedit.files import write_together

MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_|<"} | {"\n": " ", "\r": " "})
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " ", "\r": " "}
    # LaTeX would read a row that begins with [ as the argument of the \\ before it.
    | {"[": "{[}", "]": "{]}"}
    | {"±": r"$\pm$", "×": r"$\times$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "†": r"$\dagger$"}
    | {"<": "$<$", ">": "$>$", "|": "$|$"}
)


def to_markdown(table: TextTable) -> str:
    """A heading, a table in GitHub's Markdown and the note; the best cells are bold."""
    lines = [f"### {table.title.translate(MARKDOWN)}", ""]
    lines.append(_piped([head.translate(MARKDOWN) for head in table.heads]))
    lines.append(_piped([":---", *["---:"] * (len(table.heads) - 1)]))
    for number, row in enumerate(table.rows):
        cells = [cell.translate(MARKDOWN) for cell in row]
        lines.append(_piped([f"**{c}**" if (number, p) in table.best else c for p, c in enumerate(cells)]))
    notes = [note.translate(MARKDOWN) for note in table.note.splitlines()]
    lines += ["", *(f"- {note}" for note in notes)] if len(notes) > 1 else ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def to_latex(table: TextTable) -> str:
    """A table environment with the rules of booktabs; the notes are below the table."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = []
    for number, row in enumerate(table.rows):
        if number in table.rules:
            body.append(r"\midrule")
        cells = [cell.translate(LATEX) for cell in row]
        body.append(line([rf"\textbf{{{c}}}" if (number, p) in table.best else c for p, c in enumerate(cells)]))
    lines = [
        r"\begin{table}",
        rf"\caption{{{table.title.translate(LATEX)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
        r"\toprule",
        line([head.translate(LATEX) for head in table.heads]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par {{\footnotesize {note.translate(LATEX)}}}" for note in table.note.splitlines()),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: TextTable) -> str:
    """The heads and the rows; reading the CSV gives the same cells."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.heads, *table.rows])
    return text.getvalue()


def markdown(tables: Sequence[TextTable]) -> str:
    """Several tables, one below another."""
    return "\n".join(map(to_markdown, tables))


def latex(tables: Sequence[TextTable]) -> str:
    """Several tables, after a comment that names the package to load."""
    return "\n".join(["% needs \\usepackage{booktabs}", *map(to_latex, tables)])


def write_tables(folder: str | Path, tables: Sequence[TextTable]) -> None:
    """Write tables.md, tables.tex and tables.csv, all or none; in the CSV each table follows its title."""
    blocks = [f"{to_csv(TextTable('', '', (table.title,), ()))}{to_csv(table)}" for table in tables]
    texts = {"tables.md": markdown(tables), "tables.tex": latex(tables), "tables.csv": "\n".join(blocks)}
    write_together(folder, {name: text.encode() for name, text in texts.items()})


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
