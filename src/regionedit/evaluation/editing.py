"""Runs an editor, or only a mask source, over the cases of a benchmark and saves what comes out.

A case is finished when its record is there and everything that decides the result is still the same; finished cases are
not redone. A case that fails is listed with its reason and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from rich.progress import track

from regionedit.editor import Editor
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.images import to_tensor
from regionedit.mask_sources import MaskSource
from regionedit.records import EditCase, EditFailure, EditRequest

Item = TypeVar("Item")
Prepare = Callable[[EditCase], EditRequest]


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Successive lists of at most `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def edit_cases(
    editor: Editor, cases: Collection[EditCase], folder: CaseFolder, prepare: Prepare, title: str, save_regions: bool
) -> None:
    """Edit every case that is not finished; save pictures and records.

    Args:
        prepare: the request of a case, for example with a drawn region instead of a predicted one.
        title: of the progress bar.
        save_regions: save masks and probabilities too.
    """
    failures: dict[str, str] = {}
    batch = editor.config.batch
    for group in track(chunks(cases, batch), title, total=-(-len(cases) // batch)):
        requests = [prepare(case) for case in group]
        unfinished = [r for r in requests if folder.record(r.id).get("digest") != editor.digest(r)]
        for result in editor.edit_batch(unfinished) if unfinished else ():
            if isinstance(result, EditFailure):
                failures[result.id] = result.reason
                continue
            if save_regions:
                folder.write_region(result)
            folder.write_picture(result)
    folder.write_failures(failures)


def find_regions(source: MaskSource, cases: Iterable[EditCase], prepare: Prepare) -> Iterator[Outcome]:
    """What a mask source finds, without editing and without saving; a case that fails says why."""
    for case in cases:
        request = prepare(case)
        try:
            region = source.find(to_tensor([request.image]), [request], [request.captions])
        except ValueError as error:
            yield Outcome(case, failed=str(error))
            continue
        side = 0 if region.patches_BN is None else round(region.patches_BN.shape[1] ** 0.5)
        yield Outcome(
            case,
            mask=region.mask_B1HW[0, 0].numpy(),
            probability=region.probability_B1HW[0, 0].numpy(),
            patches=region.patches_BN.view(side, side).numpy() if side else None,
        )
