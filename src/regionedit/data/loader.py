"""Loaders: exact epochs, equal shares for ranks and workers, replacement of bad samples, one integer of state.

Shape letters: B samples of this rank's share of a global batch, C channels, H W pixels, K objects.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from regionedit.config import DataConfig
from regionedit.data.batches import TrainBatch, packed, unpacked
from regionedit.data.manifest import Manifest
from regionedit.data.plan import EpochPlan, EvenPlan
from regionedit.data.rounds import open_round
from regionedit.data.shards import BadSample, BadSamples, Sample, ShardReader

log = logging.getLogger(__name__)

_MOST_IN_A_ROW = 1000  # bad samples after which the search for a replacement stops

Tokenize = Callable[[list[str], list[str], list[str]], dict[str, torch.Tensor]]
"""From the instructions, source captions and target captions of a batch to their token ids."""


class _Pairs(Dataset):
    """The work of a loader process: (epoch, place) pairs in, one collated batch out, bad samples replaced.

    Args:
        plan: from an epoch to its plan.
        tokenize: None leaves the texts as they are.
    """

    def __init__(
        self, reader: ShardReader, plan: Callable[[int], EpochPlan | EvenPlan], tokenize: Tokenize | None = None
    ):
        self.reader, self.make_plan, self.tokenize = reader, plan, tokenize
        self._epoch, self._plan = -1, None

    def __getitems__(self, turns: list[tuple[int, int]]) -> dict:
        bad: list[tuple[str, str]] = []
        try:
            content = _collate([self._sample(epoch, place, bad) for epoch, place in turns])
            texts = content["instructions"], content["source_captions"], content["target_captions"]
            tokens = self.tokenize(*texts) if self.tokenize else {}
            return packed(content | tokens | {"tokens": [*tokens], "bad": bad})
        except ValueError as error:  # sent as data: an exception would arrive with the worker's whole traceback
            return {"error": str(error), "bad": bad}

    def _sample(self, epoch: int, place: int, bad: list[tuple[str, str]]) -> Sample:
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self.make_plan(epoch)
        for tried, sample in enumerate(islice(self._plan.candidates(place), _MOST_IN_A_ROW)):
            try:
                return self.reader.read(sample)
            except BadSample as error:
                reason = error.reason
                if not tried:  # a bad replacement is counted at its own place
                    bad.append((self.reader.shard(sample), reason))
        raise ValueError(
            f"{self.reader.manifest.name}: {tried + 1} samples in a row cannot be read ({reason}); pack them again"
        )


class TrainLoader:
    """Yields TrainBatch objects, one epoch for each `iter()`, without end; continues where it stopped.

    Its whole state is the number of global batches it has yielded, so it resumes exactly under any number of workers
    and ranks. Save the state between steps; prefetched batches do not count.

    Args:
        data: global_batch, image_size, workers, block_shards, max_bad_fraction.
        seed: determines the order.
        rank, ranks: this process, and the number of processes that share each global batch.
        tokenize: called by the loader processes; None leaves `TrainBatch.tokens` empty.

    Attributes:
        position: global batches yielded so far.
        waited: seconds that the caller has waited for batches.

    Raises:
        ValueError: fewer samples than one global batch, or ranks that cannot share it equally.
    """

    def __init__(
        self,
        manifest: Manifest,
        data: DataConfig,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        tokenize: Tokenize | None = None,
    ):
        if data.global_batch % ranks:
            raise ValueError(
                f"data.global_batch: {data.global_batch} cannot be shared equally by {ranks} ranks; "
                f"{-(-data.global_batch // ranks) * ranks} can"
            )
        plan = partial(EpochPlan, manifest.sizes, seed, data.global_batch, data.block_shards)
        self.plan = plan(0)
        self.position, self.waited = 0, 0.0
        self.bad = BadSamples(data.max_bad_fraction, len(self.plan) * data.global_batch // ranks)
        self._identity = {"seed": seed, "global_batch": data.global_batch, "block_shards": data.block_shards}
        self._identity["manifest"] = manifest.identity
        self._rank, self._ranks = rank, ranks
        self._manifest, self._data, self._round = manifest, data, 0
        self._pairs = _Pairs(ShardReader(manifest, data.image_size, features=data.features), plan, tokenize)
        self._batches = _dataloader(self._pairs, self._turns, data.workers)

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever the current position."""
        return len(self.plan)

    def __iter__(self) -> Iterator[TrainBatch]:
        if self.position % len(self) == 0:
            self.bad.new_epoch()
        began = time.perf_counter()
        self._open_round(self.position // len(self))
        for content in self._batches:
            batch = _unpack(content, self.bad)
            self.position += 1
            self.waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def state_dict(self) -> dict:
        """Independent of rank, ranks and workers."""
        return {"position": self.position, **self._identity}

    def load_state_dict(self, state: dict) -> None:
        """Go to a saved position.

        Raises:
            ValueError: the state belongs to another order: other shards, seed, global batch or block size.
        """
        for name, value in self._identity.items():
            if state[name] != value:
                field = {"seed": "seed", "manifest": "data.train"}.get(name, f"data.{name}")
                what = "these are not the shards" if name == "manifest" else f"{value} differs from the {state[name]}"
                raise ValueError(
                    f"{field}: {what} of the checkpoint's run; restore it, or start again with another out"
                )
        self.position = state["position"]

    def _open_round(self, epoch: int) -> None:
        """Switch to the epoch's round of proposals, before the loader processes start and copy `_pairs`."""
        number = epoch % self._data.proposal_rounds
        if number != self._round:
            manifest = open_round(self._manifest, self._data, epoch)
            self._pairs.reader.close()
            self._pairs.reader = ShardReader(manifest, self._data.image_size, features=self._data.features)
            self._round = number

    def _turns(self) -> Iterator[list[tuple[int, int]]]:
        epoch, start = divmod(self.position, len(self))
        for position in range(start, len(self)):
            yield [(epoch, place) for place in self.plan.places(position, self._rank, self._ranks)]


class ValidationLoader:
    """Yields the same evenly spread samples each time, with truth if there is any; every rank gets equally many."""

    def __init__(self, manifest: Manifest, data: DataConfig, rank: int = 0, ranks: int = 1):
        plan = EvenPlan(len(manifest), data.validation_samples, ranks)
        places = range(rank, plan.count, ranks)
        self.bad = BadSamples(data.max_bad_fraction, len(places))
        share = min(max(1, data.global_batch // ranks), data.micro_batch or data.global_batch)
        self._turns = [[(0, place) for place in places[i : i + share]] for i in range(0, len(places), share)]
        pairs = _Pairs(ShardReader(manifest, data.image_size, truth=True), partial(_same_plan, plan))
        self._batches = _dataloader(pairs, lambda: iter(self._turns), data.workers)

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[TrainBatch]:
        self.bad.new_epoch()
        for content in self._batches:
            yield _unpack(content, self.bad)


class _Turns:
    """A batch sampler for DataLoader; each iteration starts at the current position."""

    def __init__(self, turns: Callable[[], Iterator[list[tuple[int, int]]]]):
        self._turns = turns

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._turns()


def _dataloader(pairs: _Pairs, turns: Callable[[], Iterator[list[tuple[int, int]]]], workers: int) -> DataLoader:
    return DataLoader(
        pairs,
        batch_sampler=_Turns(turns),
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # so that reading leaves the global random state unchanged
    )


def _ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C and a scheduler's signals, which reach every process of a job: only the main one decides to stop.

    If workers died of them, its orderly end would become a crash. So a worker obeys SIGTERM only from its parent.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not report who sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_sigterm_from, args=(os.getppid(),), daemon=True).start()


def _exit_on_sigterm_from(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _unchanged(content: dict) -> dict:
    return content


def _same_plan(plan: EvenPlan, epoch: int) -> EvenPlan:
    return plan


def _collate(samples: list[Sample]) -> dict:
    """Fields of a TrainBatch as plain tensors and lists: they are small to send, and torch can pin them."""
    content = {
        "keys": [s.key for s in samples],
        "instructions": [s.instruction for s in samples],
        "source_captions": [s.source_caption for s in samples],
        "target_captions": [s.target_caption for s in samples],
        "operations": [s.operation for s in samples] if all(s.operation for s in samples) else [],
        "images_BCHW": _stack([s.picture_HWC for s in samples]),
    }
    if samples[0].proposal_HWC is not None:
        content["proposals_BCHW"] = _stack([s.proposal_HWC for s in samples])
    if samples[0].text is not None:
        text_B2D = torch.from_numpy(np.stack([s.text for s in samples]))
        content["source_text_BD"], content["target_text_BD"] = text_B2D.unbind(1)
    if samples[0].latent is not None:
        content["latents_BChw"] = torch.from_numpy(np.stack([s.latent for s in samples]))
    if searched := [s.regions for s in samples if s.regions is not None]:  # some shards may have none
        missing = np.full_like(searched[0], np.nan)
        regions = [missing if s.regions is None else s.regions for s in samples]
        content["searched_BKn"] = torch.from_numpy(np.stack(regions))
    if samples[0].mask_HW is not None:
        content["truth_mask_B1HW"] = _stack([s.mask_HW[..., None] for s in samples])
        content["object_masks"] = [_silhouettes(torch.from_numpy(s.objects_HW.copy())) for s in samples]
    return content


def _stack(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 [B, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))


def _unpack(content: dict, bad: BadSamples) -> TrainBatch:
    new = [pair for pair in dict.fromkeys(content["bad"]) if pair not in bad.counts]
    bad.add(content["bad"])
    if "error" in content:
        raise ValueError(content["error"])
    for shard, reason in new:
        log.warning("%s.tar: %s: replaced by the next sample", shard, reason)
    content = unpacked(content)
    given = {field.name: content[field.name] for field in fields(TrainBatch) if field.name in content}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return TrainBatch(**given | {"tokens": {name: content[name] for name in content["tokens"]} or None})


def _silhouettes(objects_HW: torch.Tensor) -> torch.Tensor:
    """bool [K, H, W], the named object first; its mask is empty if the edit names none (add, background)."""
    numbers = torch.arange(1, max(1, int(objects_HW.max())) + 1, dtype=torch.uint8)
    return objects_HW == numbers[:, None, None]
