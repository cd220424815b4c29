"""Published figures from published.yaml: quoted with their source, never measured here, never corrected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.yaml")
UNKNOWN = "unknown"
NEEDED = ("source", "protocol", "benchmark", "columns", "rows")
OPTIONAL = ("note", "second_hand", "scale")
REMARKS = ("note", "impossible")
SAME_DATA = {"emu_edit_unfiltered": "emu_edit"}  # benchmark -> another benchmark with the same data set


@dataclass(frozen=True)
class PublishedRow:
    """One published row.

    Args:
        method: as printed.
        benchmark: key of BENCHMARKS.
        protocol: name of a protocol, or `unknown` if the authors do not say enough to repeat it.
        source: paper and table.
        figures: published column title -> figure, in the metric's own unit.
        note: a remark on the row, for example that the system gets the human mask.
        table_note: a remark on the whole table.
        impossible: why a figure cannot be right; the row is still shown as printed.
        second_hand: taken from notes on the paper and not checked against it.
    """

    method: str
    benchmark: str
    protocol: str
    source: str
    figures: dict[str, float]
    note: str = ""
    table_note: str = ""
    impossible: str = ""
    second_hand: bool = False

    @property
    def cited(self) -> str:
        """The source, marked if the figures are second-hand."""
        return f"{self.source} (second-hand, from notes on the paper)" if self.second_hand else self.source

    @property
    def remark(self) -> str:
        """The note to show with the row; empty if there is none."""
        return "; ".join(part for part in (self.impossible and f"impossible: {self.impossible}", self.note) if part)


def read_published(path: str | Path = FILE) -> tuple[PublishedRow, ...]:
    """Read all rows, in the file's order.

    Each table of the file has `source`, `protocol`, `benchmark`, `columns` and `rows`. Optional keys are `note` and
    `second_hand`, which apply to all its rows, and `scale`: title -> factor from the printed unit to the metric's. A
    row is [method, figures in the columns' order], null where nothing is printed; a mapping at its end may hold `note`
    and `impossible`.

    Raises:
        ValueError: a table lacks a key or has an unknown one, or a row does not fit its columns.
    """
    import yaml

    rows = []
    for number, table in enumerate(yaml.safe_load(Path(path).read_text()), 1):
        where = f"{path}: table {number} ({table.get('source', 'without a source')})"
        if lacking := [key for key in NEEDED if not table.get(key)]:
            raise ValueError(f"{where}: lacks {', '.join(lacking)}")
        if extra := set(table) - {*NEEDED, *OPTIONAL}:
            raise ValueError(f"{where}: unknown {', '.join(sorted(extra))}; a table has {', '.join(NEEDED + OPTIONAL)}")
        if strange := set(table.get("scale", {})) - set(table["columns"]):
            raise ValueError(f"{where}: scale: no column {', '.join(sorted(strange))}")
        rows += [_row(table, printed, where) for printed in table["rows"]]
    return tuple(rows)


def of_benchmark(benchmark: str, protocol: str) -> tuple[list[PublishedRow], list[PublishedRow]]:
    """The published rows on a benchmark's data: those of this benchmark and protocol, and all others."""
    data = SAME_DATA.get(benchmark, benchmark)
    rows = [row for row in read_published() if SAME_DATA.get(row.benchmark, row.benchmark) == data]
    same = [row for row in rows if (row.benchmark, row.protocol) == (benchmark, protocol)]
    return same, [row for row in rows if row not in same]


def _row(table: dict[str, Any], printed: list, where: str) -> PublishedRow:
    remarks = printed[-1] if isinstance(printed[-1], dict) else {}
    method, *numbers = printed[:-1] if remarks else printed
    columns, scale = table["columns"], table.get("scale", {})
    if extra := set(remarks) - set(REMARKS):
        raise ValueError(f"{where}: {method}: unknown {', '.join(sorted(extra))}; a row has {', '.join(REMARKS)}")
    if len(numbers) != len(columns):
        raise ValueError(f"{where}: {method}: {len(numbers)} figures for {len(columns)} columns")
    if not isinstance(method, str) or any(
        isinstance(x, bool) or not isinstance(x, int | float | None) for x in numbers
    ):
        raise ValueError(f"{where}: {method}: a row is a name and numbers or null")
    figures = {title: x * scale.get(title, 1) for title, x in zip(columns, numbers, strict=True) if x is not None}
    return PublishedRow(
        method=method,
        benchmark=table["benchmark"],
        protocol=table["protocol"],
        source=table["source"],
        figures=figures,
        note=remarks.get("note", ""),
        table_note=table.get("note", ""),
        impossible=remarks.get("impossible", ""),
        second_hand=table.get("second_hand", False),
    )
