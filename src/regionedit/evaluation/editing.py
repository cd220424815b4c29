"""Runs an editor, or only a mask source, over the cases of a benchmark and saves the results.

A case is finished if its record exists and everything that the result depends on is unchanged; finished cases are not
edited again. A case that fails is saved with its reason, and the run continues. Several processes (torchrun, SLURM)
share the cases without padding; a case and the cases that continue it stay in one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from regionedit.editor import Editor
from regionedit.error_log import write_traceback
from regionedit.evaluation.outcomes import CaseFolder, Outcome
from regionedit.generators import noise_seed
from regionedit.images import to_tensor
from regionedit.mask_sources import MaskSource
from regionedit.progress import track
from regionedit.records import EditCase, EditFailure, EditRequest

Item = TypeVar("Item")
Prepare = Callable[[EditCase], EditRequest]
TOGETHER = 32  # cases whose pictures are in memory at the same time
# environment variables of torchrun and srun: a process's number, and the number of processes
PLACES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True)
class Share:
    """This process's part of the cases: every `of`-th chain of cases, beginning with number `place` (from 0)."""

    place: int = 0
    of: int = 1

    @classmethod
    def of_this_process(cls) -> Share:
        """From the environment of torchrun or SLURM; all cases without one."""
        for place, of in PLACES:
            if of in os.environ:
                return cls(int(os.environ.get(place, 0)), int(os.environ[of]))
        return cls()

    def pick(self, cases: Iterable[EditCase]) -> Iterator[EditCase]:
        """The cases of this share, in their order."""
        chain_of: dict[str, int] = {}
        chains = 0
        for case in cases:
            if case.continues is None:
                chain_of[case.id], chains = chains, chains + 1
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
    """Successive lists of at most `size` cases; no case continues another case of its list."""
    group: list[EditCase] = []
    for case in cases:
        if len(group) == size or any(case.continues == other.id for other in group):
            yield group
            group = []
        group.append(case)
    if group:
        yield group


def own_noise(request: EditRequest) -> EditRequest:
    """The request with a seed of its own, made of its seed and its id.

    With one seed for all cases, an unlucky noise would favour or harm all of them alike, and the intervals of the means
    would be too narrow. The record of a case has the seed that alone repeats it.
    """
    return replace(request, seed=noise_seed(request.seed, request.id))


def edit_cases(
    editor: Editor,
    cases: Collection[EditCase],
    folder: CaseFolder,
    prepare: Prepare,
    title: str,
    save_regions: bool,
    share: Share = Share(),
) -> None:
    """Edit every unfinished case of the share; save pictures and records.

    A case that continues another one edits that case's edited picture.

    Args:
        prepare: case -> request, for example with a drawn region instead of a predicted one.
        title: of the progress bar.
        save_regions: also save masks and probabilities.
    """
    for group in turns(share.pick(track(cases, title, len(cases))), editor.config.batch):
        requests, finished = [], set()
        for case in group:
            request = own_noise(prepare(case))
            if case.continues is not None:
                previous = folder.picture(case.continues)
                if previous is None:
                    folder.write_failure(case.id, f"the previous turn, {case.continues}, has no picture")
                    continue
                request = replace(request, image=previous)
            if folder.record(case.id).get("digest") == editor.digest(request):
                finished.add(len(requests))
            requests.append(request)
        for result in editor.edit_batch(requests, finished) if len(finished) < len(requests) else ():
            if isinstance(result, EditFailure):
                folder.write_failure(result.id, result.reason)
                write_traceback(folder.folder, result.error, result.id)
                continue
            if save_regions:
                folder.write_region(result)
            folder.write_picture(result)


def find_regions(source: MaskSource, cases: Iterable[EditCase], prepare: Prepare) -> Iterator[Outcome]:
    """Outcomes with the regions of a mask source; nothing is edited or saved. A failed case has its reason."""
    for case in (case for case in cases if case.scored):
        request = own_noise(prepare(case))
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
