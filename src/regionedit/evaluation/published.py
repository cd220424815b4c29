"""Published figures from published.yaml: quoted with their source, never measured here, never corrected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.yaml")
UNKNOWN = "unknown"
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


@cache
def read_published(path: str | Path = FILE) -> tuple[PublishedRow, ...]:
    """Read all rows, in the file's order; the tests check the file.

    Each table of the file has `source`, `protocol`, `benchmark`, `columns` and `rows`. Optional keys are `note` and
    `second_hand`, which apply to all its rows, and `scale`: title -> factor from the printed unit to the metric's. A
    row is [method, figures in the columns' order], null where nothing is printed; a mapping at its end may hold `note`
    and `impossible`.
    """
    import yaml

    return tuple(
        _row(printed, **{name: value for name, value in table.items() if name != "rows"})
        for table in yaml.safe_load(Path(path).read_text())
        for printed in table["rows"]
    )


def of_benchmark(benchmark: str, protocol: str) -> tuple[list[PublishedRow], list[PublishedRow]]:
    """The published rows on a benchmark's data: those of this benchmark and protocol, and all others."""
    data = SAME_DATA.get(benchmark, benchmark)
    rows = [row for row in read_published() if SAME_DATA.get(row.benchmark, row.benchmark) == data]
    same = [row for row in rows if (row.benchmark, row.protocol) == (benchmark, protocol)]
    return same, [row for row in rows if row not in same]


def _row(
    printed: list, columns: list[str], scale: dict[str, float] | None = None, note: str = "", **table: Any
) -> PublishedRow:
    remarks = printed[-1] if isinstance(printed[-1], dict) else {}
    method, *numbers = printed[:-1] if remarks else printed
    figures = {
        title: x * (scale or {}).get(title, 1) for title, x in zip(columns, numbers, strict=True) if x is not None
    }
    return PublishedRow(method=method, figures=figures, table_note=note, **table, **remarks)
