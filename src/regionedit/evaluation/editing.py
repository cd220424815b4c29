"""Runs an editor, or only a mask source, over the cases of a benchmark and saves what comes out.

A case is finished when its record is there and everything that decides the result is still the same; finished cases are
not redone. A case that fails is listed with its reason and the others go on. Several processes (torchrun, SLURM) share
the cases without padding: a case and those that continue it stay with one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
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
# variables in which torchrun and srun tell a process its place and how many there are
PLACES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True)
class Share:
    """Which part of the cases is this process's: every `of`-th chain from `place`, counted from 0."""

    place: int = 0
    of: int = 1

    @classmethod
    def of_this_process(cls) -> Share:
        """As torchrun or SLURM say; all cases where neither does."""
        for place, of in PLACES:
            if of in os.environ:
                return cls(int(os.environ.get(place, 0)), int(os.environ[of]))
        return cls()

    def pick(self, cases: Iterable[EditCase]) -> Iterator[EditCase]:
        """The cases of this share, in their order."""
        chain_of: dict[str, int] = {}
        begun = 0
        for case in cases:
            if case.continues is None:
                chain_of[case.id], begun = begun, begun + 1
            else:
                chain_of[case.id] = chain_of[case.continues]
            if chain_of[case.id] % self.of == self.place:
                yield case


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Successive lists of at most `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def turns(cases: Iterable[EditCase], size: int) -> Iterator[list[EditCase]]:
    """Successive lists of at most `size` cases, none of which continues another of its list."""
    together: list[EditCase] = []
    for case in cases:
        if len(together) == size or any(case.continues == other.id for other in together):
            yield together
            together = []
        together.append(case)
    if together:
        yield together


def edit_cases(
    editor: Editor,
    cases: Collection[EditCase],
    folder: CaseFolder,
    prepare: Prepare,
    title: str,
    save_regions: bool,
    share: Share = Share(),
) -> None:
    """Edit every case of the share that is not finished; save pictures and records.

    A case that continues another gets that one's edited picture as its source.

    Args:
        prepare: the request of a case, for example with a drawn region instead of a predicted one.
        title: of the progress bar.
        save_regions: save masks and probabilities too.
    """
    for group in turns(share.pick(track(cases, title, total=len(cases))), editor.config.batch):
        unfinished = []
        for case in group:
            request = prepare(case)
            if case.continues is not None:
                before = folder.picture(case.continues)
                if before is None:
                    folder.write_failure(case.id, f"the turn before, {case.continues}, has no picture")
                    continue
                request = replace(request, image=before)
            if folder.record(case.id).get("digest") != editor.digest(request):
                unfinished.append(request)
        for result in editor.edit_batch(unfinished) if unfinished else ():
            if isinstance(result, EditFailure):
                folder.write_failure(result.id, result.reason)
                continue
            if save_regions:
                folder.write_region(result)
            folder.write_picture(result)


def find_regions(source: MaskSource, cases: Iterable[EditCase], prepare: Prepare) -> Iterator[Outcome]:
    """What a mask source finds, without editing and without saving; a case that fails says why."""
    for case in (case for case in cases if case.scored):
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
