"""One evaluation, top to bottom: editor -> saved pictures -> scores -> summary, report and printed table."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import torch
from pandas import DataFrame
from rich.console import Console

from regionedit.command_line import save_config
from regionedit.config import EvaluateConfig
from regionedit.editor import Editor
from regionedit.evaluation import BENCHMARKS, METRICS
from regionedit.evaluation.baselines import IDENTITY, require_baselines
from regionedit.evaluation.benchmarks import Benchmark
from regionedit.evaluation.calibration import check_data, check_expected
from regionedit.evaluation.editing import Share
from regionedit.evaluation.entries import Entry, finished_pictures, own, rival, system, system_editor, unedited
from regionedit.evaluation.export import write_tables
from regionedit.evaluation.gallery import write_gallery
from regionedit.evaluation.metrics import CaseMetric
from regionedit.evaluation.protocols import Protocol
from regionedit.evaluation.report import write_examples, write_report
from regionedit.evaluation.scoring import ScoreLog, score_cases, summarise
from regionedit.evaluation.tables import evaluation_tables, few_cases, print_table, print_tables
from regionedit.files import write_atomic
from regionedit.provenance import packages

COUNTED = ("n_found", "counts")  # of a protocol's block: what grows with the cases and changes no case's score
WIDTH = 132  # columns of the printed tables where no terminal says how many there are


def evaluate(config: EvaluateConfig, console: Console | None = None) -> dict:
    """Run a benchmark; `out` receives what the configuration's docstring says. Running it again goes on.

    Returns:
        What summary.json holds; after the stage `edit` alone, {"n", "failed"} of this process's cases.

    Raises:
        ValueError: the configuration names something unknown, or lacks something; one line that names the field.
    """
    if config.benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark: no benchmark {config.benchmark!r}; there are: {', '.join(BENCHMARKS)}")
    require_baselines(config.baselines)
    if taken := set(config.systems) & {config.mask_source, *config.baselines}:
        raise ValueError(f"systems.{min(taken)}: this row has the name already; choose another")
    if extra := set(config.edited_baselines) - set(config.baselines):
        raise ValueError(f"edited_baselines: {', '.join(sorted(extra))} must be listed in baselines too")
    share = Share.of_this_process()
    if share.of > 1 and config.stage != "edit":
        raise ValueError(
            f"stage: {share.of} processes share the editing; run them with --stage edit, then one to score"
        )
    ceiling = _read_ceiling(config.ceiling)
    protocol = Protocol.read(config.protocol) if config.protocol else None
    config = protocol.apply(config) if protocol else config
    cases = BENCHMARKS[config.benchmark](config.data, config.limit, config.ids)
    protocol = protocol or Protocol.own(config.benchmark, cases)
    make_metrics(cases.metrics, config, not config.regions_only)  # a judge that is missing must not show an hour later
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    for line in check_data(config, cases) if config.stage != "edit" else ():
        console.print(line, markup=False)
    some = BENCHMARKS[config.benchmark](config.data, config.systems_limit or config.limit, config.ids)
    if config.pictures is not None:
        entries, systems = _finished(config), []
    else:
        entries, systems = _run(config, cases, some, share, console)
    if config.stage == "edit":
        ids = [case.id for case in share.pick(cases)]
        return {"n": len(ids), "failed": sum(entries[0].folder.failure(i) is not None for i in ids)}
    config = entries[0].config
    groups = list(next(iter(cases)).groups)
    depends = {key: value for key, value in protocol.block(config, cases).items() if key not in COUNTED}
    missing: list[str] = []
    torch.backends.cudnn.allow_tf32 = False  # embeddings in full float32, on every GPU
    for entry in (*entries, *systems):
        edited = some if entry in systems else cases
        metrics = make_metrics(cases.metrics, entry.config, entry.edited)
        log = entry.folder and ScoreLog(
            Path(config.out) / "scores" / f"{entry.name}.jsonl",
            depends | {"region": asdict(entry.config.region), "metrics": list(metrics), "packages": packages()},
            entry.folder.stamp,
        )
        entry.rows = score_cases(entry.outcomes, edited, metrics, f"scoring: {entry.title}", len(edited), log)
        entry.summary = summarise(entry.rows, metrics, groups, cases.headline)
        if entry.folder:
            entry.rows["seconds"] = entry.rows["id"].map(entry.folder.seconds)
            entry.summary["seconds"] = _seconds(entry.rows)
        missing += [f"{name}: {why}" for name, metric in metrics.items() if (why := metric.why_missing())]
        if "region_iou_best" in entry.summary["metrics"]:
            entry.summary["best_threshold"] = metrics["region_iou_best"].best_threshold()

    summary = {
        "benchmark": config.benchmark,
        "protocol": protocol.block(config, cases),
        "name": entries[0].name,
        **entries[0].summary,
        "baselines": {e.name: e.summary | {"title": e.title, "note": e.note} for e in entries[1:]},
        "systems": _systems(entries, systems, cases.headline),
        "ceiling": ceiling,
    }
    out = Path(config.out)
    save_config(config, out / "config.yaml")
    _write_rows(entries[0], out / "cases.parquet")
    for entry in entries[1:]:
        _write_rows(entry, out / "baselines" / entry.name / "cases.parquet")
    for entry in systems:
        _write_rows(entry, out / "systems" / entry.name / "cases.parquet")
    write_atomic(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False).encode())
    write_tables(out, evaluation_tables(summary))
    tables = [*evaluation_tables(summary), *few_cases(summary, [entries[0], *systems])]
    write_report(out / "report.html", config, cases, entries, systems, summary, tables)
    write_gallery(out / "gallery.html", cases, entries[0], systems)
    write_examples(out / "examples.png", cases, entries[0])
    print_tables(summary, console)
    for table in few_cases(summary, [entries[0], *systems]):
        print_table(table, console)
    for line in dict.fromkeys(missing):
        console.print(line, markup=False)
    for line in check_expected(summary, config.expected, config.tolerance):
        console.print(line)
    console.print(f"report: {out / 'report.html'}; cases: {out / 'gallery.html'}")
    return summary


def make_metrics(names: Collection[str], config: EvaluateConfig, edited: bool) -> dict[str, CaseMetric]:
    """These metrics, fresh; those of pictures only where there are pictures."""
    wanted = [name for name in names if edited or METRICS[name].of_region]
    return {name: METRICS[name].from_config(config) for name in wanted}


def _finished(config: EvaluateConfig) -> list[Entry]:
    """Pictures that somebody made, and beside them what needs no model of ours."""
    given = finished_pictures(config)
    return [given, *(unedited(given.config) for name in config.baselines if name == IDENTITY)]


def _run(
    config: EvaluateConfig, cases: Benchmark, some: Benchmark, share: Share, console: Console
) -> tuple[list[Entry], list[Entry]]:
    """The editor's own entry and its rivals', and the other systems'; what is lacking shows before anything is edited.

    Args:
        some: the cases that the systems edit.
    """
    editor = Editor.from_config(config)
    console.print(f"editing {editor.computes}", markup=False)
    config = replace(editor.config, grid=config.grid or editor.models.encoders[0].grid)
    editor.models.mask_source(config.mask_source)
    editors = {} if config.regions_only else {name: system_editor(name, config) for name in config.systems}
    rivals = [rival(name, config, editor, cases, cases.headline, share) for name in config.baselines]
    entries = [own(config, editor, cases, share), *rivals]
    return entries, [system(name, theirs, config, some, share) for name, theirs in editors.items()]


def _systems(entries: list[Entry], systems: list[Entry], headline: tuple) -> dict:
    """The systems' scores, and those of whatever else edited, over the systems' cases alone; {} without systems."""
    if not systems:
        return {}
    ids = systems[0].rows["id"]
    found = {}
    for place, entry in enumerate([*entries, *systems]):
        if entry.edited and entry.folder:
            rows = entry.rows[entry.rows["id"].isin(ids)]
            block = summarise(rows, {n: METRICS[n] for n in rows if n in METRICS}, [], headline)
            told = {"title": entry.title if place else f"{entry.title} (this run)", "note": entry.note}
            found[entry.name] = block | told | {"seconds": _seconds(rows)}
    return found


def _seconds(rows: DataFrame) -> float | None:
    """Mean time of an edit, None where nothing tells."""
    return float(rows["seconds"].mean()) if rows["seconds"].notna().any() else None


def _read_ceiling(path: str | None) -> dict | None:
    """Metrics of the same predictor trained with masks, as an evaluation once wrote them."""
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text())
        return {key: found[key] for key in ("n", "failed", "metrics", "by")} | {"note": found.get("note", "")}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"ceiling: {path} is not the summary.json of an evaluation: {error!r}") from None


def _write_rows(entry: Entry, path: Path) -> None:
    write_atomic(path, entry.rows.to_parquet(index=False))
