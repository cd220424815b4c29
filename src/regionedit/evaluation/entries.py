"""The rows of the comparison: the editor itself and its rivals, each with a folder of finished cases."""

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
from regionedit.mask_sources import MaskSource, load_mask_source, require_mask_source
from regionedit.records import EditCase, EditRequest

UNKNOWN_GRID = 16  # on which regions are scored whose source had no grid: that of ViT-L/14


@dataclass
class Entry:
    """One row.

    Args:
        name: in summary.json.
        title: in tables.
        outcomes: cases -> their finished ones that are scored, read or found anew by each call.
        config: with the threshold that belongs to its region.
        edited: there are pictures, not only regions.
        folder: where the pictures are read from, None where everything is found anew.
        note: what the reader should know.
        rows: one per case, once scored.
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
    """Pictures that exist already: a folder of them, or the `out` of another run.

    Raises:
        ValueError: no such folder.
    """
    given = Path(config.pictures)
    if not given.is_dir():
        raise ValueError(f"pictures: {given} is not a folder")
    folder = CaseFolder(given) if (given / "pictures").is_dir() else CaseFolder(config.out, pictures=given)
    config = replace(config, grid=config.grid or folder.grid_side() or UNKNOWN_GRID)
    return Entry("pictures", f"pictures of {given}", folder.outcomes, config, True, folder)


def unedited(config: EvaluateConfig) -> Entry:
    """Every source as it is: what preservation alone scores."""
    return Entry(IDENTITY, "source, not edited", unchanged, config, edited=True)


def own(config: EvaluateConfig, editor: Editor, cases: Collection[EditCase], share: Share) -> Entry:
    """The configured editor; it only finds regions where the configuration says so."""
    name = config.mask_source
    if config.regions_only:
        source, prepare = editor.models.mask_source(name), _asked(config)
        return Entry(name, name, lambda chosen: find_regions(source, chosen, prepare), config, edited=False)
    return _edited(name, editor, config, CaseFolder(config.out), cases, share, _asked(config))


def system_editor(name: str, config: EvaluateConfig) -> Editor:
    """The editor of the infer.py configuration that `systems` names; nothing is loaded yet.

    Raises:
        ValueError: its file is missing or wrong, or an argument behind it.
    """
    try:
        path, *changes = shlex.split(config.systems[name])
        theirs = load_config(EditConfig, path, changes)
        return Editor.from_config(replace(theirs, device=config.device, batch=config.batch))
    except ValueError as error:
        raise ValueError(f"systems.{name}: {error}") from None


def system(name: str, editor: Editor, config: EvaluateConfig, cases: Collection[EditCase], share: Share) -> Entry:
    """Another editor on the same cases; marks of theirs that its mask source does not read were not made for it."""
    config = replace(config, **{f.name: getattr(editor.config, f.name) for f in fields(EditConfig)})
    folder = CaseFolder(Path(config.out) / "systems" / name, focus=config.out)
    return _edited(name, editor, config, folder, cases, share, _asked(config, marked=False))


def _edited(
    name: str,
    editor: Editor,
    config: EvaluateConfig,
    folder: CaseFolder,
    cases: Collection[EditCase],
    share: Share,
    prepare: Prepare,
) -> Entry:
    if config.stage != "score":
        edit_cases(editor, cases, folder, prepare, f"editing: {name}", save_regions=True, share=share)
    first = next(iter(cases))
    told = prepare(first).marks - first.request.marks
    note = f"the {' and '.join(sorted(told))} that {config.mask_source} reads comes from the truth" if told else ""
    return Entry(name, name, folder.outcomes, config, True, folder, note)


def _asked(config: EvaluateConfig, marked: bool = True) -> Prepare:
    """What the editor of this configuration is asked in a case; without captions the describer has to write them.

    Args:
        marked: marks of a case are meant for this editor, whatever it reads; else it gets those that it reads alone.
    """
    reads = require_mask_source(config.mask_source).reads

    def asked(case: EditCase) -> EditRequest:
        request = case.request if config.given_captions else replace(case.request, captions=None)
        unread = () if marked else ({"mask", "box", "click"} - reads)
        return marked_by_truth(config.mask_source, case, replace(request, **dict.fromkeys(unread)))

    return asked


def rival(
    name: str, config: EvaluateConfig, editor: Editor, cases: Collection[EditCase], headline: tuple, share: Share
) -> Entry:
    """A baseline on the same cases, with the same generator if it is one of `edited_baselines`."""
    if name == IDENTITY:
        return unedited(config)
    baseline = BASELINES[name]
    note = ""
    models = editor.models

    def load(region: RegionConfig) -> MaskSource:
        return load_mask_source(baseline.mask_source, region, lambda: models.encoders, lambda: models.generator)

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
        (found,) = regions([replace(case, scored=True)])
        return replace(case.request, mask=Image.fromarray((found.mask * 255).round().astype("uint8")))

    def edits(chosen: Iterable[EditCase]) -> Iterator[Outcome]:
        chosen = list(chosen)
        for region, edit in zip(regions(chosen), folder.outcomes(chosen), strict=True):
            yield replace(region, picture=edit.picture, focus=edit.focus, failed=edit.failed, note=edit.note)

    if config.stage != "score":
        # The regions are finished already: what the editor's own mask source does to them would be done twice.
        bare = replace(editor.config.region, refine="none", grow=0, feather=0.0)
        painter = Editor(replace(editor.config, mask_source="drawn", region=bare), models)
        edit_cases(painter, cases, folder, with_region, f"editing: {baseline.title}", save_regions=False, share=share)
    return Entry(name, baseline.title, edits, config, True, folder, note)
