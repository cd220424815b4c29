"""The rows of the comparison: the editor, its baselines and other systems, each with its finished cases."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pandas as pd
from PIL import Image

from regionedit.command_line import load_config
from regionedit.config import EditConfig, EvaluateConfig, RegionConfig
from regionedit.editor import Editor
from regionedit.evaluation.baselines import (
    BASELINES,
    IDENTITY,
    best_validation_threshold,
    marked_by_truth,
    true_regions,
    unchanged,
)
from regionedit.evaluation.editing import Prepare, Share, edit_cases, find_regions
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.mask_sources import Finder, require_mask_source
from regionedit.records import EditCase, EditRequest

EDITING = ("both", "edit")  # stages in which pictures are made
UNKNOWN_GRID = 16  # side of the grid for scoring regions whose source has none: that of ViT-L/14


@dataclass
class Entry:
    """One row.

    Args:
        name: key in summary.json.
        title: name in tables.
        outcomes: cases -> the outcomes of the scored ones; each call reads or computes them again.
        config: its `region.threshold` belongs to this row's region.
        edited: whether the row has edited pictures, not only regions.
        folder: where its pictures are saved; None if outcomes are computed without saving.
        note: a remark for the reader of the tables.
        rows: one for each case, once scored.
        summary: means and intervals, once scored.
    """

    name: str
    title: str
    outcomes: Callable[[Iterable[EditCase]], Iterator[Outcome]]
    config: EvaluateConfig
    edited: bool
    folder: CaseFolder | None = None
    note: str = ""
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: dict = field(default_factory=dict)


def finished_pictures(config: EvaluateConfig) -> Entry:
    """The row of existing pictures: a folder of them, or the `out` of another run; a ValueError without the folder."""
    given = Path(config.pictures)
    if not given.is_dir():
        raise ValueError(f"pictures: {given} is not a folder")
    folder = CaseFolder.of_pictures(given, config.out)
    config = replace(config, grid=config.grid or folder.grid_side() or UNKNOWN_GRID)
    return Entry("pictures", f"pictures of {given}", folder.outcomes, config, True, folder)


def unedited(config: EvaluateConfig) -> Entry:
    """The row of the unedited sources: the scores of perfect preservation."""
    return Entry(IDENTITY, "source, not edited", unchanged, config, edited=True)


def own(
    config: EvaluateConfig, editor: Editor, cases: Collection[EditCase], share: Share, all_marks: bool = True
) -> Entry:
    """The row of the configured editor; with `regions_only` it predicts regions and edits nothing."""
    name, prepare = config.mask_source, _requests(config, all_marks)
    if config.regions_only:
        source = editor.models.mask_source(name, editor.config)
        return Entry(name, name, lambda chosen: find_regions(source, chosen, prepare), config, edited=False)
    return _edited(name, editor, config, CaseFolder(config.out), cases, share, prepare)


def system_editor(name: str, config: EvaluateConfig) -> Editor:
    """The editor of the infer.py configuration that `systems` names; nothing is loaded yet.

    Raises:
        ValueError: the file is missing or wrong, or one of the arguments after it.
    """
    try:
        path, *changes = shlex.split(config.systems[name])
        theirs = load_config(EditConfig, path, changes)
        return Editor.from_config(replace(theirs, device=config.device, batch=config.batch))
    except ValueError as error:
        raise ValueError(f"systems.{name}: {error}") from None


def system(name: str, editor: Editor, config: EvaluateConfig, cases: Collection[EditCase], share: Share) -> Entry:
    """The row of another editor on the same cases; it gets only the marks of a case that its mask source reads."""
    config = replace(config, **{f.name: getattr(editor.config, f.name) for f in fields(EditConfig)})
    folder = CaseFolder(Path(config.out) / "systems" / name, focus=config.out)
    return _edited(name, editor, config, folder, cases, share, _requests(config, all_marks=False))


def _edited(
    name: str,
    editor: Editor,
    config: EvaluateConfig,
    folder: CaseFolder,
    cases: Collection[EditCase],
    share: Share,
    prepare: Prepare,
) -> Entry:
    if config.stage in EDITING:
        edit_cases(editor, cases, folder, prepare, f"editing: {name}", save_regions=True, share=share)
    first = next(iter(cases))
    added = prepare(first).marks - first.request.marks
    note = f"the {' and '.join(sorted(added))} that {config.mask_source} reads comes from the truth" if added else ""
    return Entry(name, name, folder.outcomes, config, True, folder, note)


def _requests(config: EvaluateConfig, all_marks: bool = True) -> Prepare:
    """A function from a case to the request for this configuration's editor.

    With `given_captions` false the request has no captions, and the describer writes them.

    Args:
        all_marks: pass every mark (mask, box, click) of the case on; else only those that the mask source reads.
    """
    read_marks = require_mask_source(config.mask_source).marks

    def request_of(case: EditCase) -> EditRequest:
        request = case.request if config.given_captions else replace(case.request, captions=None)
        unread = () if all_marks else ({"mask", "box", "click"} - read_marks)
        return marked_by_truth(config.mask_source, case, replace(request, **dict.fromkeys(unread)))

    return request_of


def baseline_entry(
    name: str, config: EvaluateConfig, editor: Editor, cases: Collection[EditCase], headline: tuple, share: Share
) -> Entry:
    """The row of a baseline on the same cases; if it is in `edited_baselines` it edits with the same generator."""
    if name == IDENTITY:
        return unedited(config)
    baseline = BASELINES[name]
    note = ""
    models = editor.models

    def load(region: RegionConfig) -> Finder:
        return models.mask_source(baseline.mask_source, replace(editor.config, region=region))

    source = load(config.region)
    if baseline.tuned:
        threshold = best_validation_threshold(source, config.grid, config, headline)
        config = replace(config, region=replace(config.region, threshold=threshold))
        source = load(config.region)
        note = f"threshold {threshold:.2f}, chosen on validation"

    def regions(chosen: Iterable[EditCase]) -> Iterator[Outcome]:
        return true_regions(chosen, config.grid) if name == "truth" else find_regions(source, chosen, baseline.request)

    if config.regions_only or name not in config.edited_baselines:
        return Entry(name, baseline.title, regions, config, False, note=note)

    folder = CaseFolder(Path(config.out) / "baselines" / name, focus=config.out)

    def with_region(case: EditCase) -> EditRequest:
        (region,) = regions([replace(case, scored=True)])
        return replace(case.request, mask=Image.fromarray((region.mask * 255).round().astype("uint8")))

    def edits(chosen: Iterable[EditCase]) -> Iterator[Outcome]:
        chosen = list(chosen)
        for region, edit in zip(regions(chosen), folder.outcomes(chosen), strict=True):
            made = {name: getattr(edit, name) for name in ("picture", "focus", "answers", "failed", "note")}
            yield replace(region, **made)

    if config.stage in EDITING:
        # The regions are final: refining, growing or feathering them here would apply these settings twice.
        bare = replace(editor.config.region, refine="none", grow=0, feather=0.0)
        plain = Editor(replace(editor.config, mask_source="drawn", region=bare), models)
        edit_cases(plain, cases, folder, with_region, f"editing: {baseline.title}", save_regions=False, share=share)
    return Entry(name, baseline.title, edits, config, True, folder, note)
