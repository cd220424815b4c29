"""python -m regionedit.evaluation.compare A B ...: several evaluations in one table, or the reasons for a refusal.

A and B are folders that evaluate.py wrote, or their summary.json. The command prints the table and writes
comparison.md, comparison.tex and comparison.csv (full precision) to --out. If two numbers of a column were computed
differently, it exits with code 2 and prints a line for each difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regionedit.evaluation import METRICS
from regionedit.evaluation.comparison_tables import (
    CLEAR,
    FEWEST,
    PICK_SCORE,
    Row,
    main_table,
    numbers,
    paired_differences,
    paired_table,
    pick_scores,
    preference_table,
    quoted_tables,
    soft_max,
)
from regionedit.evaluation.editor_captions import GIVEN, in_name
from regionedit.evaluation.export import latex, markdown
from regionedit.evaluation.finished_evaluations import (
    Evaluation,
    IncomparableError,
    differences,
    ignored_differences,
    read_evaluations,
)
from regionedit.evaluation.protocols import BACKBONES, FOLDER, Protocol, column_heads
from regionedit.evaluation.published import PublishedRow, of_benchmark
from regionedit.evaluation.scoring import interval
from regionedit.evaluation.tables import TextTable, print_table, terminal
from regionedit.files import write_together

WIDTH = 160  # characters in a line of the printed tables when the output is not a terminal
IDENTITY, ORACLE = "identity", "truth"  # the baselines that mark the extremes


@dataclass(frozen=True)
class Comparison:
    """Tables to print, of which the first compares the runs; that table's rows; its columns as {heading: metric}."""

    tables: list[TextTable]
    rows: list[Row]
    columns: dict[str, str]

    def write(self, out: Path) -> list[Path]:
        """Write comparison.md, comparison.tex and comparison.csv to `out`, all or none; their paths."""
        files = {
            "comparison.md": markdown(self.tables),
            "comparison.tex": latex(self.tables),
            "comparison.csv": numbers(self.rows, self.columns).to_csv(index=False),
        }
        write_together(out, {name: text.encode() for name, text in files.items()})
        return [out / name for name in files]


def compare(
    evaluations: Sequence[Evaluation],
    protocol: Protocol | None = None,
    published: bool = False,
    paired: bool = False,
    against: str | None = None,
) -> Comparison:
    """Compare evaluations that were computed in the same way.

    Args:
        evaluations: the systems.
        protocol: gives the columns, and every evaluation must have followed it; None: the first evaluation's columns.
        published: also quote published rows.
        paired: add the differences between systems on the cases that both have.
        against: add only the differences from the system of this name, and mark the cells that clearly differ from its.

    Raises:
        IncomparableError: two numbers of a column were computed differently, or not with this protocol.
        ValueError: an evaluation lacks rows that a table needs, or there is nothing to show.
    """
    first = evaluations[0]
    if protocol is not None:
        _require(protocol, evaluations)
    wanted = protocol.columns if protocol else first.block.get("columns") or column_heads(first.summary["metrics"])
    if unknown := [metric for metric in wanted.values() if metric not in METRICS]:
        raise ValueError(f"{first.name}: no metric {', '.join(unknown)}; there are: {', '.join(METRICS)}")
    if lines := differences(evaluations, wanted):
        raise IncomparableError(lines)
    columns = {title: m for title, m in wanted.items() if any(m in e.summary["metrics"] for e in evaluations)}
    if not columns:
        raise ValueError(f"{first.name}: none of the columns was measured: {', '.join(wanted)}")
    notes = [_protocol_line(first)]
    if missing := [title for title in wanted if title not in columns]:
        notes.append(f"not measured: {', '.join(missing)}")
    rows = [
        Row(e.name, "measured", _scores(e.summary, columns), e.summary["n"], e.summary["failed"]) for e in evaluations
    ]
    tables = []
    if paired or against is not None:
        raw = {f"{title} (raw)" if metric == PICK_SCORE else title: metric for title, metric in columns.items()}
        differing = paired_differences(evaluations, raw, against)
        tables.append(paired_table(differing))
    if against is not None:
        clear = {e.name: frozenset(d.title for d in differing if d.clear and d.one == e.name) for e in evaluations}
        rows = [replace(row, clear=clear[row.name]) for row in rows]
        notes.append(
            f"{CLEAR} the 95 % interval of the paired difference from {against}, see below, excludes 0 with at least "
            f"{FEWEST} cases; not corrected for the number of comparisons"
        )
    if title := next((t for t, metric in columns.items() if metric == PICK_SCORE), None):
        rows, preferences, note = _with_preferences(rows, evaluations, title)
        tables += preferences
        notes.append(note)
        columns = {t: m for t, m in columns.items() if t != title or preferences}
    row_names = {e.name: e.name + in_name(e.block) for e in evaluations}
    rows = [replace(row, name=row_names[row.name]) for row in rows]
    rows += _bounds(evaluations, columns)
    notes += [f"{e.name}: {note}" for e in evaluations if (note := e.summary.get("note"))]
    notes += ignored_differences(evaluations) + _incomplete(evaluations, columns)
    if published:
        quoted, others, remarks = _published(evaluations, protocol, columns)
        rows += quoted
        notes += remarks
        tables += others
    heading = f"Comparison: {first.summary['benchmark']}, protocol {first.block['name']}"
    return Comparison([main_table(heading, rows, columns, notes), *tables], rows, columns)


def _require(protocol: Protocol, evaluations: Sequence[Evaluation]) -> None:
    lines = []
    for e in evaluations:
        if e.summary["benchmark"] != protocol.benchmark:
            lines.append(f"{e.name}: benchmark: {e.summary['benchmark']!r}, not {protocol.benchmark!r}")
        lines += [f"{e.name}: {line}" for line in protocol.deviations(e.block)]
    if lines:
        raise IncomparableError([f"{line}, as protocol {protocol.name} has it" for line in lines])


def _scores(block: dict, columns: Mapping[str, str]) -> dict[str, dict]:
    return {title: block["metrics"][metric] for title, metric in columns.items() if metric in block["metrics"]}


def _with_preferences(
    rows: list[Row], evaluations: Sequence[Evaluation], title: str
) -> tuple[list[Row], list[TextTable], str]:
    """The rows with the soft-max of PickScore over the systems, or without PickScore if there is only one system."""
    compared = [e for e in evaluations if PICK_SCORE in e.summary["metrics"]]
    if len(compared) < 2:
        rows = [replace(row, scores={t: s for t, s in row.scores.items() if t != title}) for row in rows]
        return rows, [], f"{title}: not shown; its soft-max is over systems, and there is only one"
    raw = pick_scores(compared)
    if raw.empty:
        raise ValueError(f"{PICK_SCORE}: no case has a score from every system")
    preferred = {name: interval(column.to_numpy()) for name, column in soft_max(raw).items()}
    rows = [replace(r, scores=r.scores | {title: preferred[r.name]}) if r.name in preferred else r for r in rows]
    note = f"{title}: soft-max of the raw scores over these {len(compared)} systems in {len(raw)} cases; chance is"
    return rows, [preference_table(raw)], f"{note} {1 / len(compared):.3f}"


def _bounds(evaluations: Sequence[Evaluation], columns: Mapping[str, str]) -> list[Row]:
    """The rows of the unedited source, which is the same for all systems, and of each system with the true region."""
    # Their PickScores are raw values, which are not part of the soft-max.
    shown = {title: metric for title, metric in columns.items() if metric != PICK_SCORE}
    baselines = [(e, e.summary.get("baselines", {})) for e in evaluations]
    bounds = [(IDENTITY, blocks[IDENTITY], "") for _, blocks in baselines if IDENTITY in blocks][:1]
    bounds += [("oracle", blocks[ORACLE], f"{e.name}: ") for e, blocks in baselines if ORACLE in blocks]
    rows = [
        Row(f"{owner}{block.get('title', kind)}", kind, _scores(block, shown), block["n"], block["failed"])
        for kind, block, owner in bounds
    ]
    return [row for row in rows if row.scores]


def _incomplete(evaluations: Sequence[Evaluation], columns: Mapping[str, str]) -> list[str]:
    """Notes on columns whose mean is over some operations only, and on systems with fewer values than scored cases."""
    notes = []
    headline = evaluations[0].block.get("headline_operations")
    of_headline = [title for title, metric in columns.items() if METRICS[metric].headline]
    if headline and of_headline:
        notes.append(f"{'; '.join(of_headline)}: over the cases of {', '.join(headline)}")
    systems: dict[str, list[str]] = {}  # note -> systems
    for e in evaluations:
        for title, metric in columns.items():
            scored = e.count_scored(metric)
            if metric in e.summary["metrics"] and scored and (n := e.summary["metrics"][metric]["n"]) < scored:
                line = f"{title}: over {n} of {scored} scored cases, the others have no value"
                systems.setdefault(line, []).append(e.name)
    return notes + [f"{', '.join(names)}, {line}" for line, names in systems.items()]


def _published(
    evaluations: Sequence[Evaluation], protocol: Protocol | None, columns: Mapping[str, str]
) -> tuple[list[Row], list[TextTable], list[str]]:
    """Published results: rows of the same protocol, tables of the others, remarks."""
    name = evaluations[0].block["name"]
    same, others = of_benchmark(evaluations[0].summary["benchmark"], name)
    if protocol is None and (FOLDER / f"{name}.yaml").is_file():
        protocol = Protocol.read(name)
    lines = [f"there is no {FOLDER / name}.yaml"]
    if protocol is not None:
        lines = [f"{e.name}: {line}" for e in evaluations for line in protocol.deviations(e.block)]
        given = [e.name for e in evaluations if e.block.get("captions") == GIVEN]
        lines += [f"{name}: the editor was given the captions against which it is scored" for name in given]
    if not same:
        remarks = [f"no printed row is known for protocol {name} on this benchmark"]
    elif lines:
        remarks = [f"no printed row compares, because something differs from protocol {name}: {'; '.join(lines)}"]
        same, others = [], same + others
    else:
        remarks = [f"not stated by the protocol's authors, {key}: {text}" for key, text in protocol.unstated.items()]
    comparable = [title for title, metric in columns.items() if metric != PICK_SCORE]
    if lost := dict.fromkeys(title for row in same for title in row.figures if title not in comparable):
        remarks.append(f"printed, but not shown here: {', '.join(lost)}")
    for source, note in dict.fromkeys((row.source, row.table_note) for row in same if row.table_note):
        remarks.append(f"{source}: {note}")
    rows = [_quoted(row, comparable) for row in same]
    return [row for row in rows if row.scores], quoted_tables(others), remarks


def _quoted(row: PublishedRow, titles: Sequence[str]) -> Row:
    scores = {title: {"mean": row.figures[title]} for title in titles if title in row.figures}
    return Row(row.method, "published", scores, source=row.cited, note=row.remark)


def _protocol_line(evaluation: Evaluation) -> str:
    """The protocol block in one line."""
    block = evaluation.block
    facts = [f"{key} {block[key]}" for key in BACKBONES if key in block]
    stated = [key for key in ("reference", "caption_filter", "resize") if key in block]
    facts += [f"{key.replace('_', ' ')}: {block[key]}" for key in stated]
    if "n_found" in block:
        facts.append(f"{block['n_found']} cases" + (f" of {block['n_expected']}" if block.get("n_expected") else ""))
    return f"{evaluation.summary['benchmark']}, protocol {block['name']}: {'; '.join(facts)}"


def main(argv: Sequence[str] | None = None) -> int:
    """0: compared. 2: not comparable, or a wrong argument; each line gives a reason."""
    parser = argparse.ArgumentParser(prog="compare", description="Several evaluations in one table.")
    parser.add_argument("evaluations", nargs="+", help="folders that evaluate.py wrote, or their summary.json")
    parser.add_argument("--protocol", help="name or YAML of a protocol: gives the columns; all must follow it")
    parser.add_argument("--out", default="outputs/comparison", help="receives comparison.md, .tex and .csv")
    parser.add_argument("--published", action="store_true", help="also quote published rows")
    parser.add_argument("--paired", action="store_true", help="add differences between systems on the same cases")
    parser.add_argument("--against", help="only differences from this system; cells that clearly differ get a mark")
    arguments = parser.parse_args(argv)
    out = Path(arguments.out)
    try:
        protocol = Protocol.read(arguments.protocol) if arguments.protocol else None
        evaluations = read_evaluations(arguments.evaluations)
        result = compare(evaluations, protocol, arguments.published, arguments.paired, arguments.against)
        files = result.write(out)
    except IncomparableError as error:
        for line in error.lines:
            print(f"compare: not comparable: {line}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return 2
    console = terminal(WIDTH)
    for table in result.tables:
        print_table(table, console)
    console.print(f"written: {', '.join(map(str, files))}", markup=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
