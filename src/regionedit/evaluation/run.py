"""One evaluation, top to bottom: editor -> saved pictures -> scores -> summary, report and printed table."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

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
from regionedit.evaluation.editor_captions import GIVEN, captions_used
from regionedit.evaluation.entries import Entry, baseline_entry, finished_pictures, own, system, system_editor, unedited
from regionedit.evaluation.export import write_tables
from regionedit.evaluation.gallery import write_gallery
from regionedit.evaluation.judge import Judge, ask, counts, require_judge
from regionedit.evaluation.metrics import CaseMetric
from regionedit.evaluation.protocols import Protocol
from regionedit.evaluation.report import write_examples, write_report
from regionedit.evaluation.scoring import ScoreLog, groups_of, score_cases, summarise
from regionedit.evaluation.tables import evaluation_tables, few_cases, print_table, print_tables, terminal
from regionedit.evaluation.turn_metrics import change_by_turn
from regionedit.files import write_atomic
from regionedit.provenance import packages

COUNTED = ("n_found", "counts")  # keys of a protocol block that count cases and change no case's score


def evaluate(config: EvaluateConfig, console: Console | None = None, marks: Literal["all", "read"] = "all") -> dict:
    """Run a benchmark and write the files that `EvaluateConfig` lists to `out`. Calling it again resumes the run.

    Args:
        marks: which marks of a case (mask, box, click) the editor gets: `read`, only those that its mask source reads;
            with `all`, a mark that it does not read replaces its mask source.

    Returns:
        The content of summary.json; with `stage` edit only {"n", "failed"} of this process's cases.

    Raises:
        ValueError: a field of the configuration has an unknown value or is missing; one line that names the field.
    """
    if config.benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark: no benchmark {config.benchmark!r}; there are: {', '.join(BENCHMARKS)}")
    require_baselines(config.baselines)
    if taken := set(config.systems) & {config.mask_source, *config.baselines}:
        raise ValueError(f"systems.{min(taken)}: mask_source or a baseline has this name already; choose another")
    if extra := set(config.edited_baselines) - set(config.baselines):
        raise ValueError(f"edited_baselines: {', '.join(sorted(extra))} must be listed in baselines too")
    if unknown := set(config.expected) - set(METRICS):
        raise ValueError(f"expected.{min(unknown)}: no metric {min(unknown)!r}; there are: {', '.join(METRICS)}")
    share = Share.of_this_process()
    if share.of > 1 and config.stage != "edit":
        raise ValueError(
            f"stage: {share.of} processes share the editing; start them with --stage edit, then one with --stage score"
        )
    ceiling = _read_ceiling(config.ceiling)
    protocol = Protocol.read(config.protocol) if config.protocol else None
    config = protocol.apply(config) if protocol else config
    require_judge(config, BENCHMARKS[config.benchmark].rubric)
    cases = BENCHMARKS[config.benchmark](config.data, config.limit, config.ids)
    protocol = protocol or Protocol.own(config.benchmark, cases)
    make_metrics(cases.metrics, config, not config.regions_only)  # fails now if a network is missing
    console = console or terminal()
    for line in check_data(config, cases) if config.stage != "edit" else ():
        console.print(line, markup=False)
    system_cases = BENCHMARKS[config.benchmark](config.data, config.systems_limit or config.limit, config.ids)
    if config.pictures is not None:
        given, systems = finished_pictures(config), []
        entries = [given, *(unedited(given.config) for name in config.baselines if name == IDENTITY)]
    else:
        entries, systems = _run(config, cases, system_cases, share, console, marks)
    judge = Judge.from_config(config.vlm_judge, cases.rubric)
    if judge and config.vlm_judge.endpoint and config.stage in ("both", "judge"):
        for entry in (*entries, *systems):
            if entry.folder and entry.edited:
                ask(judge, entry.folder, system_cases if entry in systems else cases, f"judging: {entry.title}")
    if config.stage in ("edit", "judge"):
        ids = [case.id for case in share.pick(cases)]
        return {"n": len(ids), "failed": sum(entries[0].folder.failure(i) is not None for i in ids)}
    config, used = entries[0].config, captions_used(config, cases)
    groups = list(next(iter(cases)).groups)
    depends = {key: value for key, value in protocol.block(config, cases).items() if key not in COUNTED}
    missing: list[str] = []
    torch.backends.cudnn.allow_tf32 = False  # embeddings in full float32, on every GPU
    for entry in (*entries, *systems):
        edited = system_cases if entry in systems else cases
        metrics = make_metrics(cases.metrics, entry.config, entry.edited)
        log = entry.folder and ScoreLog(
            Path(config.out) / "scores" / f"{entry.name}.jsonl",
            depends | {"region": asdict(entry.config.region), "metrics": list(metrics), "packages": packages()},
            entry.folder.stamp,
        )
        entry.rows = score_cases(entry.outcomes, edited, metrics, f"scoring: {entry.title}", len(edited), log)
        shown = groups_of(entry.rows, groups)
        measures = {name: METRICS[name] for name in metrics}
        entry.summary = summarise(entry.rows, measures, shown, cases.headline)
        if changes := change_by_turn(entry.rows, measures):
            entry.summary["change_by_turn"] = changes
        if entry.folder:
            entry.rows["seconds"] = entry.rows["id"].map(entry.folder.seconds)
            entry.summary["seconds"] = _seconds(entry.rows)
            if judge:
                judged = entry.rows["id"][entry.rows[f"{judge.name}_unanswered"].notna()]
                entry.summary["judge"] = counts(judge, entry.folder, judged)
        missing += [f"{name}: {why}" for name, metric in metrics.items() if (why := metric.why_missing())]
        if "region_iou_best" in entry.summary["metrics"]:
            entry.summary["best_threshold"] = metrics["region_iou_best"].best_threshold()

    summary = {
        "benchmark": config.benchmark,
        "protocol": protocol.block(config, cases) | used,
        "name": entries[0].name,
        "note": entries[0].note,
        **entries[0].summary,
        "baselines": {e.name: e.summary | {"title": e.title, "note": e.note} for e in entries[1:]},
        "systems": _systems(entries, systems, cases.headline),
        "ceiling": ceiling,
    }
    out = Path(config.out)
    save_config(config, out / "config.yaml")
    folders = [out, *(out / "baselines" / e.name for e in entries[1:]), *(out / "systems" / e.name for e in systems)]
    for entry, folder in zip([*entries, *systems], folders, strict=True):
        write_atomic(folder / "cases.parquet", entry.rows.to_parquet(index=False))
    write_atomic(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False).encode())
    tables, of_cases = evaluation_tables(summary), few_cases(summary, [entries[0], *systems])
    write_tables(out, tables)
    write_report(out / "report.html", config, cases, entries, systems, summary, [*tables, *of_cases])
    write_gallery(out / "gallery.html", cases, entries[0], systems)
    write_examples(out / "examples.png", cases, entries[0])
    print_tables(summary, console)
    for table in of_cases:
        print_table(table, console)
    for entry in (*entries, *systems):
        if found := entry.summary.get("judge"):
            listed = ", ".join(f"{count} {what}" for what, count in found.items())
            console.print(f"judge {config.vlm_judge.model}, answers about {entry.title}: {listed}", markup=False)
    if used["captions"] == GIVEN:
        console.print("captions: the editor was given those that score it; --given_captions false withholds them")
    for line in dict.fromkeys(missing):
        console.print(line, markup=False)
    for line in check_expected(summary, config.expected, config.tolerance):
        console.print(line)
    console.print(f"report: {out / 'report.html'}; cases: {out / 'gallery.html'}")
    return summary


def make_metrics(names: Collection[str], config: EvaluateConfig, edited: bool) -> dict[str, CaseMetric]:
    """New instances of the named metrics; with `edited` false, only those that need no edited picture."""
    computed = [name for name in names if edited or METRICS[name].of_region]
    return {name: METRICS[name].from_config(config) for name in computed}


def _run(
    config: EvaluateConfig, cases: Benchmark, system_cases: Benchmark, share: Share, console: Console, marks: str
) -> tuple[list[Entry], list[Entry]]:
    """The rows of the editor and its baselines, and the rows of the other systems.

    A wrong configuration raises before the first edit.

    Args:
        system_cases: the cases that the other systems edit.
    """
    editor = Editor.from_config(config)
    console.print(f"editing {editor.computes}", markup=False)
    config = replace(editor.config, grid=config.grid or editor.models.encoders(editor.config)[0].grid)
    editor.models.mask_source(config.mask_source, editor.config)
    editors = {} if config.regions_only else {name: system_editor(name, config) for name in config.systems}
    baselines = [baseline_entry(name, config, editor, cases, cases.headline, share) for name in config.baselines]
    entries = [own(config, editor, cases, share, marks == "all"), *baselines]
    return entries, [system(name, theirs, config, system_cases, share) for name, theirs in editors.items()]


def _systems(entries: list[Entry], systems: list[Entry], headline: tuple) -> dict:
    """Scores of the systems and of all other rows with edited pictures, over the systems' cases; {} without systems."""
    if not systems:
        return {}
    ids = systems[0].rows["id"]
    blocks = {}
    for number, entry in enumerate([*entries, *systems]):
        if entry.edited and entry.folder:
            rows = entry.rows[entry.rows["id"].isin(ids)]
            block = summarise(rows, {n: METRICS[n] for n in rows if n in METRICS}, [], headline)
            label = {"title": entry.title if number else f"{entry.title} (this run)", "note": entry.note}
            blocks[entry.name] = block | label | {"seconds": _seconds(rows)}
    return blocks


def _seconds(rows: DataFrame) -> float | None:
    """Mean seconds of an edit; None if none was recorded."""
    return float(rows["seconds"].mean()) if rows["seconds"].notna().any() else None


def _read_ceiling(path: str | None) -> dict | None:
    """Metrics of the same predictor trained with masks, read from the summary.json of an earlier evaluation."""
    if path is None:
        return None
    try:
        summary = json.loads(Path(path).read_text())
        return {key: summary[key] for key in ("n", "failed", "metrics", "by")} | {"note": summary.get("note", "")}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"ceiling: {path} is not the summary.json of an evaluation: {error!r}") from None
